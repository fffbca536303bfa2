"""The result of an analysis: a small frame that carries its parameters and units with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from entropy_lab.errors import RunFormatError
from entropy_lab.files import replacing
from entropy_lab.json_values import json_value
from entropy_lab.schema import ANALYSES
from entropy_lab.validation import polars_dtype

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """One table with a name, its parameters and the units of its columns.

    Parameters
    ----------
    name
        What computed it: an analysis' name, or ``"figure2"`` for the numbers behind a picture.
    frame
        The rows.
    metadata
        Parameters and results that are not rows (``first_steps``, ``spearman``, …); JSON values.
    units
        Column name -> unit; columns without a unit may be left out.

    Examples
    --------
    >>> rows = pl.DataFrame({"step": [0], "entropy": [0.5]})
    >>> table = Table("entropy", rows, {"n_boot": 1000}, {"entropy": "nats/token"})
    >>> table.to_pandas()["entropy"].item()
    0.5
    >>> table.columns
    ('step', 'entropy')
    """

    name: str
    frame: pl.DataFrame
    metadata: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, columns: Mapping[str, Any], **metadata: Any) -> Table:
        """Make a built-in analysis' table, with the types and units of ``schema.ANALYSES``; NaN becomes null.

        Parameters
        ----------
        name
            The analysis.
        columns
            Column name -> values, shape (rows,); columns that the schema does not list are Float64.
        **metadata
            Parameters and results that are not rows; NaN becomes null.

        Examples
        --------
        >>> Table.of("covariance", {"accuracy": [0.5], "n_groups": [3], "covariance": [float("nan")]}).frame.row(0)
        (0.5, 3, None)
        """
        known = ANALYSES[name]
        frame = pl.DataFrame({key: pl.Series(key, values, strict=False) for key, values in columns.items()})
        types = {key: polars_dtype(known[key].dtype if key in known else "Float64") for key in columns}
        frame = frame.with_columns(pl.col(pl.Float64, pl.Float32).fill_nan(None)).cast(types)  # type: ignore[arg-type]
        units = {key: known[key].unit for key in columns if key in known and known[key].unit}
        return cls(name, frame, {key: json_value(value) for key, value in metadata.items()}, units)

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(self.frame.columns)

    def __len__(self) -> int:
        return self.frame.height

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas frame; metadata and units stand in ``.attrs``.

        Columns with nulls become ``float64`` with NaN (numbers) or ``object`` with None (texts, Booleans), so that no
        optional dependency is needed.
        """
        import pandas as pd

        frame = pd.DataFrame({name: self.frame[name].to_numpy() for name in self.frame.columns})
        frame.attrs.update(self.metadata, units=dict(self.units))
        return frame

    def write(self, path: Path) -> Path:
        """Write one Parquet file, atomically; parameters and units go to its key-value metadata as JSON texts.

        Parameters
        ----------
        path
            The file to write; its folder is made when missing.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        OutputError
            The folder cannot be written.
        """
        values = {"entropy-lab": "table/1", "name": self.name, "units": json.dumps(dict(self.units)), **self._texts()}
        with replacing(path) as temporary:
            self.frame.write_parquet(temporary, compression="zstd", metadata=values)
        return path

    def _texts(self) -> dict[str, str]:
        return {key: json.dumps(value, allow_nan=False, default=str) for key, value in self.metadata.items()}

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a table that ``write`` wrote.

        Raises
        ------
        RunFormatError
            The file is not a table of entropy-lab, or is damaged.
        """
        try:
            values = dict(pl.read_parquet_metadata(path))
            frame = pl.read_parquet(path, glob=False)
            name, units = values.pop("name"), json.loads(values.pop("units"))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, KeyError, ValueError) as error:
            wrong = f"cannot be read as an entropy-lab table ({type(error).__name__})"
            raise RunFormatError(str(path), wrong, hint="delete it and run `entropy-lab analyze` again") from error
        kept = {key: value for key, value in values.items() if key not in ("entropy-lab", "ARROW:schema")}
        return cls(name, frame, {key: json.loads(value) for key, value in kept.items()}, units)
