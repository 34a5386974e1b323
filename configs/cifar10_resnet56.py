"""ResNet-56 on CIFAR-10 at half its MACs (AMC, table 3).

    AMC_TF_DATA=DIR amc-compress --config=configs/cifar10_resnet56.py --workdir=runs/resnet56

DIR holds `cifar10.npz` and `resnet56_cifar10.keras`, a trained network that takes pixels from 0 to
255 and returns logits. The 5,000 images of the reward are split off the training set; a network
that was trained on them scores higher on them than on the test images.

Searches of 40 episodes found plans of 89.6 to 90.9 % test accuracy before fine-tuning (six seeds,
two versions of the agent; uniform 88.1 to 88.5 %), one of 100 episodes 91.65 % in 23 minutes of one
core (`python benchmarks/search.py --data=DIR --network=resnet56 --macs=0.5 --episodes=40 --seed=0
--early_stop=2 --rerank=4 --policies=amc,random,cmaes,uniform --workdir=DIR`; the long search with
`--episodes=100 --policies=amc,uniform` and without `--rerank`). The plan of an older search
(resnet56_0.5_amc_0 of benchmarks/plans.tar.xz, 49.96 % of the MACs) has 91.89 %, and 93.22 %
after 16 epochs of this fine-tuning; the dense network has 93.39 % (`python benchmarks/finetune.py`,
seed 0). With `--config.precision=mixed_bfloat16` an epoch took five to six minutes on one core.
"""

import cifar10
import keras

import amc_tf


def get_config():
    return cifar10.default_config()


def get_model(config):
    return keras.models.load_model(cifar10.folder(config) / "resnet56_cifar10.keras")


def get_task(config):
    train, validation, test = cifar10.load(config)

    def fine_tune(model):
        backup = cifar10.backup(config, model)
        teacher = get_model(config)
        cifar10.fit(
            model,
            train,
            config.epochs,
            config.rate,
            teacher,
            backup=backup,
            precision=config.precision,
        )

    return amc_tf.Task(
        train=train,
        validation=validation,
        test=test,
        compile=cifar10.compile,
        fine_tune=fine_tune,
        # Not augmented: a refit on distorted images did worse (benchmarks/refit.py).
        calibration=cifar10.spread(train[0], config.calibration_size),
        batch_size=250,
    )
