"""The same GGUF model with other metadata: another chat template, a longer context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf


def remade(source: Path, target: Path, **changed: Any) -> Path:
    """Write ``source`` to ``target`` with some of its metadata changed, given by the last part of each name."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = changed.get(name.rsplit(".", 1)[-1], field.contents())
        writer.add_key_value(name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
