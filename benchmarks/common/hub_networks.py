"""The vision backbones of KerasHub, small, with random weights and a head of ten classes.

KerasHub is no requirement of amc_tf: `pip install --no-deps keras-hub regex kagglehub kagglesdk`
beside it suffices for these, which download nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras

SHAPE = (96, 96, 3)
_SETTINGS: Mapping[str, dict[str, Any]] = {
    "ResNet": dict(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 128],
        stackwise_num_blocks=[2, 2, 2],
        stackwise_num_strides=[1, 2, 2],
        block_type="bottleneck_block",
    ),
    "DenseNet": dict(stackwise_num_repeats=[3, 6, 4], growth_rate=16),
    "EfficientNet": dict(
        stackwise_kernel_sizes=[3, 3, 3, 5],
        stackwise_num_repeats=[1, 2, 2, 2],
        stackwise_input_filters=[16, 16, 24, 40],
        stackwise_output_filters=[16, 24, 40, 80],
        stackwise_expansion_ratios=[1, 4, 4, 6],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.0, 0.25, 0.25],
        stackwise_strides=[1, 2, 2, 2],
        stackwise_block_types=["fused", "fused", "unfused", "unfused"],
        width_coefficient=1.0,
        depth_coefficient=1.0,
    ),
    "MobileNet": dict(
        stackwise_expansion=[[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
        stackwise_num_blocks=[2, 3, 2, 3],
        stackwise_num_filters=[[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [0.25] * 3, [0.3, 0.3], [0.3, 0.25, 0.25]],
        stackwise_activation=[["relu"] * 2, ["hard_swish"] * 3, ["hard_swish"] * 2]
        + [["hard_swish"] * 3],
        stackwise_padding=[[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
        output_num_filters=288,
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=False,
        last_layer_filter=128,
        squeeze_and_excite=0.5,
        input_num_filters=16,
    ),
    "MiT": dict(
        layerwise_depths=[2, 2, 2, 2],
        num_layers=4,
        layerwise_num_heads=[1, 2, 5, 8],
        layerwise_sr_ratios=[8, 4, 2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        hidden_dims=[32, 64, 160, 256],
    ),
    "ViT": dict(patch_size=(16, 16), num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=512),
    "DeiT": dict(
        patch_size=(16, 16), num_layers=4, num_heads=4, hidden_dim=128, intermediate_dim=512
    ),
    "SwinTransformer": dict(embed_dim=48, depths=(2, 2), num_heads=(3, 6), window_size=6),
    "DINOV2": dict(
        patch_size=16,
        num_layers=4,
        hidden_dim=128,
        num_heads=4,
        intermediate_dim=512,
        position_embedding_shape=(96, 96),
    ),
    "DINOV3": dict(patch_size=16, num_layers=4, hidden_dim=128, num_heads=4, intermediate_dim=512),
    "HGNetV2": dict(
        depths=[1, 2, 2],
        embedding_size=32,
        hidden_sizes=[64, 128, 256],
        stem_channels=[3, 16, 32],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[
            (32, 16, 64, 1, 1, 3),
            (64, 32, 128, 2, 1, 3),
            (128, 64, 256, 2, 1, 3),
        ],
        apply_downsample=[False, True, True],
        use_lightweight_conv_block=[False, False, True],
    ),
    "CSPNet": dict(
        stem_filters=32,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2, 2],
        stackwise_strides=[1, 2, 2],
        stackwise_num_filters=[32, 64, 128],
        block_type="dark_block",
        stage_type="dark",
    ),
    "VGG": dict(stackwise_num_repeats=[1, 2, 2], stackwise_num_filters=[32, 64, 128]),
    "Xception": dict(
        stackwise_conv_filters=[[32, 64], [64, 128], [128, 128]],
        stackwise_pooling=[True, True, False],
    ),
}


def _build(name: str) -> keras.Model:
    import keras_hub

    make = getattr(keras_hub.models, f"{name}Backbone")
    backbone = make(image_shape=SHAPE, **_SETTINGS[name])
    inputs, features = backbone.inputs, backbone.output
    if None in inputs[0].shape[1:]:  # it is built for any size
        inputs = [keras.Input(SHAPE)]
        features = backbone(inputs[0])
    if isinstance(features, dict):
        features = list(features.values())[-1]
    pools = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}
    outputs = keras.layers.Dense(10, name="classes")(pools[len(features.shape)]()(features))
    return keras.Model(inputs, outputs, name=name)


NETWORKS: Mapping[str, Callable[[], keras.Model]] = {
    f"hub_{name}": functools.partial(_build, name) for name in _SETTINGS
}
