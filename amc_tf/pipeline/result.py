"""What a compression returns: the numbers of `result.json`, the files and the small network."""

from __future__ import annotations

import dataclasses
import html
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.report import tables
from amc_tf.report.table import in_html
from amc_tf.runs import layout
from amc_tf.runs.model_files import load_model
from amc_tf.runs.result import RunResult
from amc_tf.runs.workdir import Workdir


@dataclasses.dataclass(frozen=True, eq=False)
class CompressionResult(RunResult, Mapping[str, Any]):
    """The result of a compression.

    The attributes are the sections of `result.json`, such as `result.finetuned.score`, None or
    empty where no stage has set them. It is a mapping of the file's own keys, too:
    `result["finetuned"]["score"]`.
    `print(result)` shows the closing tables.

    Attributes:
        workdir: the run's folder.
        safe_mode: whether the file of the small network is refused if it holds Python code.
    """

    workdir: pathlib.Path = dataclasses.field(kw_only=True)
    safe_mode: bool = dataclasses.field(default=True, kw_only=True)

    @property
    def report(self) -> pathlib.Path:
        """The page on the run, to be opened in a browser."""
        return self.workdir / layout.REPORT

    @property
    def files(self) -> dict[str, pathlib.Path]:
        """The TFLite files by their format, such as `int8`."""
        formats = {layout.tflite_format(name): name for name in self.tflite}
        return {known: self.workdir / name for known, name in formats.items() if known}

    @property
    def model(self) -> keras.Model:
        """The small network, fine-tuned, read from its file.

        Raises:
            AmcError: no fine-tuning has ended, or the file is missing or damaged.
        """
        if self.finetuned is None:
            raise AmcError(f"{self.workdir} holds no fine-tuned network; run this stage first")
        return load_model(self.workdir / layout.FINETUNED.name, safe_mode=self.safe_mode)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `result.json`."""
        names = [field.name for field in dataclasses.fields(RunResult)]
        return RunResult(**{name: getattr(self, name) for name in names}).to_json()

    @classmethod
    def read(cls, folder: str | pathlib.Path) -> CompressionResult:
        """Reads the result of a run's folder.

        Raises:
            AmcError: the file is damaged, of a newer format, or not a result of this kind.
        """
        path = pathlib.Path(folder).expanduser()
        return cls(**vars(RunResult.read(path)), workdir=path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_json())

    def __len__(self) -> int:
        return len(self.to_json())

    def __getitem__(self, section: str) -> Any:
        """Returns a section of `result.json`."""
        return self.to_json()[section]

    def __str__(self) -> str:
        return f"{tables.table(self)}\nreport: {self.report}"

    def _repr_html_(self) -> str:
        """Returns the closing tables, as notebooks show them."""
        lines = [*tables.budget_lines(self), f"report: {self.report}"]
        text = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
        return "".join(map(in_html, tables.tables(self))) + text


def result_of(folder: Workdir) -> CompressionResult:
    """Returns the result of the stages that a locked work directory holds."""
    safe = folder.safe_mode
    return CompressionResult(**vars(folder.result), workdir=folder.path, safe_mode=safe)
