"""A Parquet table as a list: columns are found by their names, as in one of text. pyarrow is imported when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command
from sora_spec.train.data.entries import Entries, Source
from sora_spec.train.data.rows import Paths, choose_columns, label_text

_BATCH_ROWS = 65_536


def read_parquet(path: Path) -> Source:
    """Read the columns of path, label and caption; rows are counted from 1.

    Raises UserError without pyarrow, for what is no Parquet table, and for what is not understood, at its row.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            f"{path} is a Parquet table, and pyarrow, which reads them, is not installed", install_command("parquet")
        ) from None
    source = Source(path, "Parquet table", Entries(path.parent, unit="row"))
    try:
        with parquet.ParquetFile(path) as table:
            _read(table, source)
    except arrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as a Parquet table: {reason}", "write it anew") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    return source


def _read(table: Any, source: Source) -> None:
    names: list[str] = list(table.schema_arrow.names)
    columns, unread = choose_columns(names, str(source.path))
    if columns is None:
        raise UserError(
            f"{source.path}: no column names the files: {', '.join(names) or '(none)'}",
            "call the columns path, label and caption",
        )
    fields = [None if place is None else names[place] for place in (columns.path, columns.label, columns.caption)]
    repeated = next((name for name in fields if name is not None and names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{source.path}: two columns are called {repeated}", "rename or remove one")
    source.unread = unread
    if unread:
        source.remarks.append(f"columns that are not read: {', '.join(unread)}")
    paths, row = Paths(source.path), 0
    wanted = [name for name in fields if name is not None]
    for batch in table.iter_batches(_BATCH_ROWS, columns=wanted):
        values = [[None] * len(batch) if name is None else batch.column(name).to_pylist() for name in fields]
        for path, label, caption in zip(*values, strict=True):
            row += 1
            where = f"{source.path}:{row}"
            if not isinstance(path, str):
                raise UserError(f"{where}: no path: {path!r}", "every row needs the path of a video or image")
            if caption is not None and not isinstance(caption, str):
                raise UserError(f"{where}: caption {caption!r} is not text", "make it a column of strings")
            source.entries.add(paths.read(path, row), label_text(label, where), caption, row)
