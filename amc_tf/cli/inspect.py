"""Prints the groups, refusals, MACs and parameters of any .keras file, and draws them.

amc-inspect model.keras
amc-inspect --html=model.html --dot=model.dot model.keras
amc-inspect --freeze=stem,block_1* --verify model.keras
amc-inspect --input_shape=224,224,3 model_of_open_size.keras
amc-inspect --import=my_layers.py model_with_my_layers.keras
"""

import pathlib

from absl import app, flags

from amc_tf.cli import common


def main(argv: list[str]) -> None:
    """Prints the channel graph of each given file."""
    if not argv[1:]:
        raise app.UsageError("name at least one .keras file: amc-inspect model.keras")
    common.load_tensorflow()
    from amc_tf.graph import constraints
    from amc_tf.graph.inspection import dot, drawing, html, listing
    from amc_tf.pruning import verification
    from amc_tf.runs import model_files

    files = argv[1:]
    writers = [(flags.FLAGS.dot, dot.to_dot), (flags.FLAGS.html, html.to_html)]
    wanted = [(path, write) for path, write in writers if path]
    if wanted and len(files) > 1:
        raise app.UsageError(
            f"--dot and --html draw one model, received {len(files)} ({', '.join(files)}); "
            "call amc-inspect once for each"
        )
    common.import_files()
    wishes = constraints.Constraints(freeze=tuple(flags.FLAGS.freeze))
    input_shape = _shapes(flags.FLAGS.input_shape)
    for file in files:
        model = model_files.load_model(file, safe_mode=not flags.FLAGS.unsafe)
        graph = wishes.analyze(model, input_shape, flags.FLAGS.allow_approximate)
        print(listing.describe(graph))
        if flags.FLAGS.verify:
            difference = verification.verify(model, graph)
            print(f"halved, rebuilt and masked: outputs differ by {difference:.1e} at most")
        for path, write in wanted:
            pathlib.Path(path).write_text(write(drawing.picture(graph)), encoding="utf-8")


def _shapes(text: str | None) -> list[tuple[int, ...]]:
    """Returns the shapes that a flag holds: sizes by commas, inputs by semicolons."""
    try:
        return [tuple(map(int, part.split(","))) for part in text.split(";")] if text else []
    except ValueError:
        raise app.UsageError(
            "--input_shape takes the sizes of an input without the batch axis, such as "
            f"224,224,3, and those of several inputs as '224,224,3;10', received {text!r}"
        ) from None


def entry() -> None:
    """Runs the command `amc-inspect`."""
    flags.DEFINE_string("dot", None, "File for a Graphviz picture of the groups.")
    flags.DEFINE_string("html", None, "File for a page that shows the groups.")
    flags.DEFINE_list("freeze", [], "Patterns of layers that keep all their output channels.")
    flags.DEFINE_string(
        "input_shape",
        None,
        "Shape for which MACs are counted where the model's input has open sizes, without the "
        "batch axis: 224,224,3. Of several inputs, in their order: '224,224,3;10'.",
    )
    flags.DEFINE_bool(
        "allow_approximate",
        False,
        "Whether channels that a layer or RMS normalisation takes statistics over may be dropped.",
    )
    flags.DEFINE_bool("verify", False, "Whether to halve every group and check the outputs.")
    common.define_debug_flag()
    common.define_unsafe_flag()
    common.define_import_flag()
    common.run(main, __doc__)


if __name__ == "__main__":
    entry()
