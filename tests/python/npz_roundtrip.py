"""Makes files with numpy for tidelog to read, and reads with numpy what tidelog wrote.

    npz_roundtrip.py make DIR      writes arrays.npz, arrays_deflated.npz, objects.npz, *.pkl
                                   and what they hold as tidelog's JSON: arrays.json, state.json
    npz_roundtrip.py check FILE    FILE is a checkpoint whose state holds arrays.json's arrays
"""

import base64
import json
import pathlib
import pickle
import sys

import numpy as np

DTYPES = "? i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 g F D G".split()


def arrays():
    """Every dtype in every shape, order of axes and order of bytes."""
    made = {}
    for code in DTYPES:
        dtype = np.dtype(code)
        base = (np.arange(24) % 3 - 1 if dtype.kind != "b" else np.arange(24) % 2).astype(dtype)
        if dtype.kind in "fc":
            base[:4] = [np.nan, np.inf, -np.inf, -0.0]
        clear_padding(base)
        cube = base.reshape(2, 3, 4)
        made[f"{code}_c"] = cube
        made[f"{code}_fortran"] = np.asfortranarray(cube)
        made[f"{code}_big"] = cube.astype(dtype.newbyteorder(">"))
        made[f"{code}_big_fortran"] = np.asfortranarray(made[f"{code}_big"])
        made[f"{code}_scalar"] = base[5:6].reshape(())
        made[f"{code}_empty"] = base[:0]
        made[f"{code}_empty_axes"] = cube[:, :0, :]
        made[f"{code}_transposed"] = cube.transpose(1, 0, 2)
        made[f"{code}_sliced"] = cube[:, ::2, ::-1]
    made["64_axes"] = np.ones((1,) * 64, "u1")
    return made


def clear_padding(array):
    """Zeroes what is random: the last 6 of the 16 bytes of a long double on x86."""
    if array.dtype.char in "gG" and np.finfo(array.dtype).nmant == 63:
        array.view("u1").reshape(-1, 16)[:, 10:] = 0


def state():
    """A state dict of everything that the pickle decoder knows."""
    shared = np.arange(6, dtype="f4").reshape(2, 3)
    values = {
        "none": None,
        "bools": [True, False],
        "ints": [0, 1, -1, 255, 256, 65536, -(2**31), 2**63 - 1, -(2**63), 2**63, 2**64, -(2**100)],
        "huge": 10**4000,
        "floats": [0.0, -0.0, 1.5, 1e16, float("inf"), float("-inf"), float("nan"), 5e-324],
        "complex": complex(1.0, -0.0),
        "texts": ["", "ä漢😀", "a\0b", "x" * 300],
        "bytes": [b"", b"\x00\xff", bytearray(b"ba"), bytes(range(256)) * 2],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "nested": {"a": {"b": [{"c": (None, {})}]}},
        "keys": {1: "int", (1, "a"): "tuple", None: "none", 2.5: "float", b"k": "bytes"},
        "$dollar": {"$float": "NaN"},
        "shared": [shared, shared, {"again": shared}],
        "numpy scalars": [np.dtype(code).type(1) for code in DTYPES if code not in "gG"],
        "objects": np.array([[1, "x", None], [2.5, (1,), {"k": shared}]], dtype=object),
        "fortran objects": np.asfortranarray(np.array([[1, 2, 3], [4, 5, 6]], dtype=object)),
        "object": np.array({"inner": 1}, dtype=object),
    }
    values["arrays"] = arrays()
    return values


def tagged(value):
    """tidelog's JSON form of a value."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return {"$scalar": inline(np.asarray(value))}
    if isinstance(value, np.ndarray):
        return tagged(value.tolist()) if value.dtype.hasobject else {"$array": inline(value)}
    if isinstance(value, str):
        return {"$text": encoded(value.encode())} if "\0" in value else value
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": encoded(value)}
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else {"$int": str(value)}
    if isinstance(value, float):
        return tagged_float(value)
    if isinstance(value, complex):
        return {"$complex": [tagged_float(value.real), tagged_float(value.imag)]}
    if isinstance(value, tuple):
        return {"$tuple": [tagged(item) for item in value]}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if all(isinstance(key, str) and key[:1] != "$" for key in value):
        return {key: tagged(item) for key, item in value.items()}
    return {"$dict": [[tagged(key), tagged(item)] for key, item in value.items()]}


def tagged_float(value):
    if value != value:
        return {"$float": "NaN"}
    if abs(value) == float("inf"):
        return {"$float": "Infinity" if value > 0 else "-Infinity"}
    plain = abs(value) < 1e16 and str(value) != "-0.0"
    return value if plain else {"$float": repr(value)}


def inline(array):
    little = np.ascontiguousarray(array).reshape(array.shape)
    little = little.astype(array.dtype.newbyteorder("<"))
    data = encoded(little.tobytes("C"))
    return {"dtype": little.dtype.str, "shape": list(array.shape), "data": data}


def encoded(data):
    return base64.b64encode(data).decode()


def as_numpy_1(data):
    """The same pickle with the module names of numpy 1; texts of protocol 4 carry their length."""
    for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = module.replace(b"_core", b"core")
        data = data.replace(bytes([0x8C, len(module)]) + module, bytes([0x8C, len(old)]) + old)
        data = data.replace(b"c" + module + b"\n", b"c" + old + b"\n")
    assert b"numpy._core" not in data
    return data


def make(folder):
    np.savez(folder / "arrays.npz", **arrays())
    np.savez_compressed(folder / "arrays_deflated.npz", **arrays())
    np.savez(folder / "objects.npz", state_dict=state(), basin_coords=np.arange(64.0))
    (folder / "arrays.json").write_text(json.dumps(tagged(arrays())))
    (folder / "state.json").write_text(json.dumps(tagged(state())))
    for protocol in range(2, 6):
        data = pickle.dumps(state(), protocol)
        (folder / f"protocol_{protocol}.numpy_2.pkl").write_bytes(data)
        (folder / f"protocol_{protocol}.numpy_1.pkl").write_bytes(as_numpy_1(data))


def check(path):
    with np.load(path, allow_pickle=False) as npz:
        tree = json.loads(npz["tree"].tobytes())
        references = tree["state"]
        assert tree["tidelog"] == 1, tree["tidelog"]
        assert set(references) == set(arrays()), "other keys"
        for name, expected in arrays().items():
            found = npz[references[name]["$array"]["member"].removesuffix(".npy")]
            assert found.dtype.newbyteorder("<") == expected.dtype.newbyteorder("<"), name
            assert inline(found) == inline(expected), name
        coords = npz["basin_coords"]
        assert coords.dtype == np.float64 and coords.shape == (64,)
        assert np.array_equal(coords, np.arange(64) / 3)
        assert len(npz.files) == len(arrays()) + 2, npz.files


if __name__ == "__main__":
    command, argument = sys.argv[1:]
    {"make": make, "check": check}[command](pathlib.Path(argument))
