"""Import of ``.pt2`` files without running anything that is in them.

``torch.export.load`` unpickles parts of an archive (with ``weights_only=False`` where it has to), evaluates symbolic
shapes as Python expressions and generates code from names. A model from somebody else needs none of that: the graph is
JSON and the weights are raw bytes, so both are read directly here, and an archive that has pickled weights, custom
objects or compiled libraries is refused.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput, reading
from lipcompare.network.from_torch.graph import Call, Ref, TorchGraph, without_softmax
from lipcompare.network.from_torch.importer import from_graph
from lipcompare.network.graph import Network
from lipcompare.network.lowering.constants import require_finite
from lipcompare.network.room import MEMORY, Room, count
from lipcompare.network.shapes import one_example, one_of_each

# The numbers that the archive format gives the element types.
_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
# Internal operators that exporters leave in graphs. Others may skip their checks, and a file could name any of them.
_INTERNAL = (
    "_native_batch_norm_legit_no_training", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_to_copy", "_prelu_kernel",
    "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "_weight_norm", "_weight_norm_interface",
    "_unsafe_view", "_reshape_alias", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d", "_safe_softmax", "_softmax", "_log_softmax",
)  # fmt: skip
_SAVE_AGAIN = "save it again with torch.export.save(program, path)"


def from_pt2(
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    name: str | None = None,
    memory: int = MEMORY,
    logits: bool = False,
) -> Network:
    """Import a file that ``torch.export.save`` wrote.

    Args:
        path: the file.
        input_shape: shape of one example without the batch axis, needed only where the program's own is ambiguous.
        name: name of the network (default: the file's name).
        memory: bytes that the import may take beyond what the file's own size explains.
        logits: leave out a softmax at the end.

    Raises:
        InvalidInput: the file is broken, does not fit in memory, was written by an old version of torch, or has
            pickled or compiled parts.
        UnsupportedOperation: an operation has no lowering.
    """
    path = Path(path)
    with reading(path, ".pt2 file", _SAVE_AGAIN):
        room = Room(memory, path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            graph = _read(_Archive(path, archive, room), input_shape)
        graph = without_softmax(graph) if logits else graph
        return from_graph(graph, name or path.stem, room)


class _Archive:
    """The records of an archive by their name without the leading folder."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, room: Room) -> None:
        self._path, self._archive, self._room = path, archive, room
        names = archive.namelist()
        self._names = {n.split("/", 1)[1] if "/" in n else n: n for n in names}
        self._old = "serialized_exported_program.json" in names  # as torch wrote it before 2.8
        if any(n.startswith("data/aotinductor/") for n in self._names):
            self.refuse("a compiled library")

    def refuse(self, what: str) -> NoReturn:
        raise InvalidInput(
            f"{self._path} holds {what}, and loading it could run code: load it where you trust it and pass the "
            "ExportedProgram."
        )

    def json(self, name: str) -> Any:
        name = "serialized_exported_program.json" if self._old else name
        if name not in self._names:
            raise InvalidInput(f"{self._path} is not a .pt2 file (it holds no {name}): {_SAVE_AGAIN}.")
        return json.loads(self._content(self._names[name], copies=20))  # as python objects: 20 times the text

    def _content(self, name: str, copies: int = 1) -> bytes:
        size = self._archive.getinfo(name).file_size
        self._room.require(copies * size / 8, f"{name!r} in {self._path}")
        return self._archive.read(name)

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """All tensors under ``data/weights`` or ``data/constants``, by their name in the model."""
        if self._old:
            record = "serialized_state_dict.pt" if kind == "weights" else "serialized_constants.pt"
            content = self._content(self._names[record])
            try:
                loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True) if content else {}
            except pickle.UnpicklingError:
                self.refuse("pickled objects")
            return {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
        tensors: dict[str, Tensor] = {}
        payloads = self.json(f"data/{kind}/model_{kind}_config.json")["config"]
        for key, payload in payloads.items():
            meta = payload["tensor_meta"]
            if payload["use_pickle"] or meta is None:
                self.refuse(f"a pickled object ({key!r})")
            raw = bytearray(self._content(self._names[f"data/{kind}/{payload['path_name']}"]))
            shape, strides = _integers(meta["sizes"]), _integers(meta["strides"])
            offset = _integers([meta["storage_offset"]])[0]
            dtype = _DTYPES[meta["dtype"]]
            self._room.require(count(shape), f"Weight {key!r} of shape {tuple(shape)}")
            flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            if min((*shape, *strides, offset, 0)) < 0 or (min((*shape, 1)) > 0 and last >= flat.numel()):
                raise InvalidInput(f"{self._path} is damaged (weight {key!r} is too short): {_SAVE_AGAIN}.")
            tensors[key] = flat.as_strided(shape, strides, offset).clone()
        return tensors


def _read(archive: _Archive, input_shape: Sequence[int] | None) -> TorchGraph:
    program = archive.json("models/model.json")
    module = program["graph_module"]
    graph, signature = module["graph"], module["signature"]
    weights = {**archive.tensors("weights"), **archive.tensors("constants")}
    constants: dict[str, Tensor] = {}
    inputs: list[str] = []
    for spec in signature["input_specs"]:
        ((kind, body),) = spec.items()
        if kind == "user_input":
            if "as_tensor" in body["arg"]:
                inputs.append(body["arg"]["as_tensor"]["name"])
        else:
            keys = ("parameter_name", "buffer_name", "tensor_constant_name")
            key = next((body[k] for k in keys if k in body), None)
            if key in weights:
                constants[body["arg"]["name"]] = weights[key]
                if kind == "parameter":
                    require_finite(weights[key], f"Parameter {key!r}")
    outputs = [s["user_output"]["arg"] for s in signature["output_specs"] if "user_output" in s]
    one_of_each(len(inputs), len(outputs))
    meta = graph["tensor_values"][inputs[0]]
    shape, batched = one_example([n.get("as_int") for n in meta["sizes"]], input_shape)
    calls = tuple(call for k, node in enumerate(graph["nodes"]) for call in _calls(k, node))
    for call in calls:
        name = call.target.split(".")[1] if call.target.startswith("aten.") else ""
        if name.startswith("_") and name not in _INTERNAL:
            archive.refuse(f"a call of the internal operator {name!r}")
    return TorchGraph(
        calls=calls,
        constants=constants,
        input=inputs[0],
        input_shape=shape,
        dtype=_DTYPES[meta["dtype"]],
        batched=batched,
        output=_argument(outputs[0]),
    )


def _calls(k: int, node: Mapping[str, Any]) -> list[Call]:
    """The call that a node makes, followed by one that names each of its results where there are several."""
    target = str(node["target"]).removeprefix("torch.ops.").removeprefix("_")
    positional = tuple(_argument(i["arg"]) for i in node["inputs"] if i.get("kind") != 2)
    named = {i["name"]: _argument(i["arg"]) for i in node["inputs"] if i.get("kind") == 2}
    results = [_argument(o) for o in node["outputs"]]
    listed = len(results) == 1 and isinstance(results[0], list)
    names = [r.name if isinstance(r, Ref) else None for r in (results[0] if listed else results)]
    single = len(names) == 1 and not listed
    name = names[0] if single and names[0] else f"call {k}"
    path = str(node.get("metadata", {}).get("nn_module_stack", "")).split(";")[-1].split(",")
    shown = str(node.get("name") or names[0] if names else name)
    where = f"{path[1]} ({shown})" if len(path) > 1 and path[1] else shown
    calls = [Call(name, target, positional, named, where)]
    if not single:
        calls += [Call(n, "operator.getitem", (Ref(name), i), {}, where) for i, n in enumerate(names) if n]
    return calls


def _argument(item: Mapping[str, Any]) -> Any:
    """An argument of the format: a union with one entry, whose name is its type."""
    ((kind, value),) = item.items()
    if kind == "as_tensor" or (kind in ("as_sym_int", "as_sym_float", "as_sym_bool") and "as_name" in value):
        return Ref(value["name"] if kind == "as_tensor" else value["as_name"])
    if kind == "as_name":
        return Ref(value)
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"):
        return _argument(value)
    if kind in ("as_tensors", "as_nested_tensors"):
        return [Ref(v["name"]) for v in value]
    if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_argument(v) for v in value]
    if kind == "as_scalar_type":
        return _DTYPES.get(value)
    if kind in ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings", "as_int_lists"):
        return value
    if kind == "as_float":
        return float(value)
    if kind == "as_floats":
        return [float(v) for v in value]
    return None  # devices, layouts and memory formats, which say nothing about the function


def _integers(sizes: Sequence[Mapping[str, Any]]) -> list[int]:
    return [int(n["as_int"]) for n in sizes]
