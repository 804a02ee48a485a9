"""Read the data in a pickle without executing it.

A pickle is a program for a stack machine, and its instructions can call any function. `load_pickle` executes only the
instructions that build data. It replaces every call by a record (`PickledObject`). Then it checks the shapes and byte
counts in the records of numpy's arrays, types and scalars, and converts these records to arrays.
"""

from __future__ import annotations

import datetime
import pickletools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from storage.arrays import _array_from_bytes
from storage.kinds import check_kind
from storage.reading import OBJECT_BYTES, VALUE_BYTES, Budget, RefusedError, naming, read_file

# Limits on the structure of a pickle.
_MAX_OPCODES = 20_000_000
_MAX_DEPTH = 100

# The memory and time of a pickle are checked once in this many instructions.
_CHECK_INTERVAL = 1024

# Names in pickles that hold data, though not data that is read: classes of well-known packages, and the functions by
# which these make their objects. Any other name has no reason to be in a file of data.
_UNREAD = re.compile(
    r"((collections|datetime|pathlib|decimal|fractions|uuid|pandas|scipy|sklearn|torch|torch_utils|keras|PIL)(\.\w+)*"
    r"\.([A-Z]\w*|deque|defaultdict|date|datetime|time|timedelta|timezone|_\w*(unpickle|rebuild|reconstruct|new|load)\w*)"
    r"|(builtins|__builtin__)\.(set|frozenset|complex|slice|range|xrange|list|dict|tuple|int|float|bool|str|bytearray))"
)

# Instructions of innocent pickles that are not read: what they make.
_UNREAD_OPCODES = {
    "EMPTY_SET": "a set", "ADDITEMS": "a set", "FROZENSET": "a frozenset", "NEXT_BUFFER": "data outside the file",
    "PERSID": "references to data outside the file", "BINPERSID": "references to data outside the file",
    "INST": "an object of an old class", "OBJ": "an object of an old class", "NEWOBJ_EX": "an unusual object",
}  # fmt: skip

_PLAIN_VALUES = (str, bytes, bytearray, int, float, type(None))


@dataclass(eq=False)
class PickledObject:
    """A pickle's record of an object that is not plain data; nothing in it is executed.

    Attributes
    ----------
    name : str
        Module and class (or function) in the file, for example "dnnlib.tflib.network.Network".
    args : tuple
        The arguments of the call.
    state : object
        The argument of ``__setstate__``; None if the file has none.
    entries : dict
        The items that the file sets, for a subclass of dict.
    """

    name: str
    args: tuple
    state: object = None
    entries: dict = field(default_factory=dict)


#: A function that makes an object from its record.
_Builders = Mapping[str, Callable[[PickledObject], object]]


def load_pickle(path: str | Path, allowed: _Builders | None = None):
    """Read the data in a pickle file without executing it or importing anything.

    Parameters
    ----------
    path : str or Path
        Pickle of protocol 2 to 5, written by Python 2 or 3 and numpy 1 or 2. Python 2 strings are read as latin-1.
    allowed : dict of str to callable, optional
        Further names that the file may call. Each maps to your function or class that gets the `PickledObject` and
        returns its replacement, for example
        ``allowed={"dnnlib.util.EasyDict": lambda pickled: pickled.entries}``. It should only store values: an error
        in it is reported as a damaged file, so check the result afterwards.

    Returns
    -------
    object
        None, bool, int, float, str, bytes, list, tuple, dict (its keys are plain values), numpy arrays, scalars and
        dtypes, and the results of the functions in `allowed`. Shared references stay shared.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged, too large or too deeply nested, or calls anything else.

    Notes
    -----
    The opcodes are decoded by CPython's ``pickletools``. The time is linear in the file's size.
    """
    data = read_file(path)
    with naming(path):
        return _parse_pickle(data, allowed or {}, Budget(len(data)))


def _parse_pickle(data: bytes, allowed: _Builders, budget: Budget):
    try:
        check_kind(data, "pickle")
        content = _PickleMachine(_NUMPY_BUILDERS.keys() | allowed.keys(), budget).run(data)
        # At protocol 2, Python 3 writes bytes as text that is converted back to bytes, so they count twice.
        return _Builder({**_NUMPY_BUILDERS, **allowed}, budget, 2 * len(data)).build(content)
    except MemoryError:
        raise
    except RefusedError as error:
        reason = str(error)
    except Exception as error:  # as in naming, never pass on a message that may quote the file
        reason = f"it is damaged or truncated ({type(error).__name__}), replace it"
        if not data.startswith(b"\x80"):  # the first byte from protocol 2 on
            reason = "it is no pickle, or one of protocol 0 or 1, write it again with protocol 2"
    raise RefusedError(f"not a file this reader accepts: {reason}; nothing in it was executed")


@dataclass(frozen=True)
class _Global:
    """The name of a class or function, and nothing else."""

    name: str


class _PickleMachine:
    """The stack machine of a pickle, without calls.

    It accepts an opcode that is in `_LITERALS` or `_CONSTANTS` or has a method; ``pickletools`` decodes its argument.
    It rejects persistent ids, extension codes, sets, the old INST and OBJ, keyword arguments and out-of-band buffers.
    """

    _LITERALS = frozenset(
        {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
        | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
        | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
        | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
    )

    _CONSTANTS = {
        "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
        "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple,
    }  # fmt: skip

    def __init__(self, names: Collection[str], budget: Budget):
        self.names = names
        self.budget = budget
        self.stack = []
        self.marks = []  # the stacks below each open mark
        self.memo = {}

    def run(self, data: bytes):
        end = n_bytes = 0
        for self.count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            end = position + 1
            if self.count % _CHECK_INTERVAL == 0:
                self.budget.take(n_bytes)
                n_bytes = 0
            if self.count >= _MAX_OPCODES:
                raise RefusedError("it has too many instructions; save large data as .npz")
            if opcode.name in self._LITERALS:
                self.stack.append(argument)
                n_bytes += VALUE_BYTES
                continue
            n_bytes += OBJECT_BYTES
            if opcode.name in self._CONSTANTS:
                self.stack.append(self._CONSTANTS[opcode.name]())
            elif operation := getattr(self, f"op_{opcode.name.lower()}", None):
                operation(argument)
            elif opcode.name in _UNREAD_OPCODES:
                raise RefusedError(
                    f"it holds {_UNREAD_OPCODES[opcode.name]}, which is not read; save plain data"
                )
            else:
                raise RefusedError(f"data does not need its instruction {opcode.name}, do not trust it")
        if end != len(data):
            raise RefusedError(f"{len(data) - end} bytes follow its end, replace it")
        if self.marks or len(self.stack) != 1:
            raise RefusedError("it does not produce exactly one object, replace it")
        return self.stack[0]

    def op_nothing(self, argument):
        pass

    op_proto = op_frame = op_stop = op_nothing

    # The stack and its marks
    def op_mark(self, argument):
        self.marks.append(self.stack)
        self.stack = []

    def pop_to_mark(self):
        items, self.stack = self.stack, self.marks.pop()
        return items

    def op_pop(self, argument):
        if self.stack:
            self.stack.pop()
        else:
            self.pop_to_mark()

    def op_pop_mark(self, argument):
        self.pop_to_mark()

    def op_dup(self, argument):
        self.stack.append(self.stack[-1])

    # The memo: a pickler numbers stored objects 0, 1, 2, ..., so no index exceeds the number of instructions.
    def op_put(self, argument):
        if argument > self.count:
            raise RefusedError(f"its memo index {argument} is out of order, do not trust it")
        self.memo[argument] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, argument):
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, argument):
        self.stack.append(self.memo[argument])

    op_binget = op_long_binget = op_get

    # Tuples, lists, dicts. Pop items before looking up the target, because popping to a mark changes the stack.
    def op_tuple(self, argument):
        items = self.pop_to_mark()
        self.stack.append(tuple(items))

    def op_tuple1(self, argument):
        self.stack[-1:] = [(self.stack[-1],)]

    def op_tuple2(self, argument):
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def op_tuple3(self, argument):
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def op_list(self, argument):
        items = self.pop_to_mark()
        self.stack.append(items)

    def extend(self, items):
        target = self.stack[-1]
        if type(target) is not list:
            raise RefusedError("it appends to something other than a list, do not trust it")
        target.extend(items)

    def op_append(self, argument):
        self.extend([self.stack.pop()])

    def op_appends(self, argument):
        self.extend(self.pop_to_mark())

    def op_dict(self, argument):
        items = self.pop_to_mark()
        self.stack.append({})
        self.update(items)

    def update(self, items):
        target = self.stack[-1]
        entries = target.entries if type(target) is PickledObject else target
        if type(entries) is not dict or len(items) % 2:
            raise RefusedError("it sets items of something other than a dict, do not trust it")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Python must not hash a deeply nested tuple either, because that can overflow its stack.
            if not isinstance(key, _PLAIN_VALUES):
                raise RefusedError(f"a dict key must be a plain value, got {type(key).__name__}")
            entries[key] = value

    def op_setitem(self, argument):
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def op_setitems(self, argument):
        self.update(self.pop_to_mark())

    # Names and calls are only recorded.
    def push_name(self, module, attribute):
        name = f"{module}.{attribute}"
        if name not in self.names and _UNREAD.fullmatch(name):
            advice = "save the table as .csv" if name.startswith("pandas") else "save plain numbers and text"
            raise RefusedError(f"it holds {name[:80]}, which is not read; {advice}")
        if "." in attribute or name not in self.names:
            raise RefusedError(f"such data does not need {ascii(name[:80])}, do not trust it")
        self.stack.append(_Global(name))

    def op_global(self, argument):
        self.push_name(*argument.split(" ", 1))

    def op_stack_global(self, argument):
        attribute, module = self.stack.pop(), self.stack.pop()
        if type(attribute) is not str or type(module) is not str:
            raise RefusedError("it calls a name that is not text, do not trust it")
        self.push_name(module, attribute)

    def op_reduce(self, argument):
        args, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Global or type(args) is not tuple:
            raise RefusedError("it calls something other than a name, do not trust it")
        self.stack.append(PickledObject(function.name, args))

    op_newobj = op_reduce

    def op_build(self, argument):
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not PickledObject or target.state is not None:
            raise RefusedError("it sets the state of plain data, do not trust it")
        target.state = state


class _Builder:
    """Converts the machine's result to data, visiting every object once, however often it is referenced."""

    _OPEN = object()

    def __init__(self, builders: _Builders, budget: Budget, array_bytes: int):
        self.builders = builders
        self.budget = budget
        self.array_bytes = array_bytes  # bytes left for arrays; a pickler writes each at least once
        self.done = {}  # by id, which is safe because the machine's result outlives this object

    def build(self, value, depth=0):
        if isinstance(value, _PLAIN_VALUES):
            return value
        if depth > _MAX_DEPTH:
            raise RefusedError(f"it is nested more than {_MAX_DEPTH} deep, do not trust it")
        if id(value) not in self.done:
            self.done[id(value)] = self._OPEN
            self.done[id(value)] = self.build_new(value, depth + 1)
        if self.done[id(value)] is self._OPEN:
            raise RefusedError("an object contains itself, do not trust it")
        return self.done[id(value)]

    def build_new(self, value, depth):
        self.budget.take(OBJECT_BYTES)
        if type(value) is list:
            return [self.build(item, depth) for item in value]
        if type(value) is tuple:
            return tuple([self.build(item, depth) for item in value])
        if type(value) is dict:
            return {key: self.build(item, depth) for key, item in value.items()}
        if type(value) is PickledObject:
            return self.build_object(value, depth)
        raise RefusedError(f"it stores the bare name {value.name}, do not trust it")

    def build_object(self, pickled, depth):
        args = tuple([item if type(item) is _Global else self.build(item, depth) for item in pickled.args])
        state, entries = self.build(pickled.state, depth), self.build(pickled.entries, depth)
        result = self.builders[pickled.name](PickledObject(pickled.name, args, state, entries))
        size = len(result) if isinstance(result, bytes) else getattr(result, "nbytes", 0)
        if size > 2**16 and not isinstance(result, bytes):  # a copy: the state is no longer needed
            self.done.pop(id(pickled.state), None)
            pickled.state = None
        self.array_bytes -= size
        if self.array_bytes < 0:
            raise RefusedError("its arrays need more bytes than the file has, do not trust it")
        if isinstance(result, list | dict):
            self.budget.take(VALUE_BYTES * len(result))
        return result


def _args(pickled: PickledObject, *types, state: bool = False) -> tuple:
    """Return the arguments of a recorded call, which must have these types; reject a state unless it is allowed."""
    if pickled.entries or (pickled.state is not None and not state):
        raise RefusedError(f"{pickled.name} has items or a state, do not trust it")
    args = pickled.args
    if len(args) != len(types) or not all(map(isinstance, args, types)):
        raise RefusedError(f"{pickled.name} has unusual arguments, replace the file")
    return args


def _raw_bytes(value) -> bytes:
    """Bytes as written by Python 3, or by Python 2 and read as latin-1."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise RefusedError("an array must hold plain numbers or text, not objects")


def build_dtype(pickled: PickledObject) -> np.dtype:
    """Make the type of an array of real numbers or text."""
    code, _, _ = _args(pickled, str, int, int, state=True)
    if not re.fullmatch(r"b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,6}", code, re.ASCII):
        raise RefusedError(f"an array has type {ascii(code[:20])}, only real numbers and text are read")
    state = pickled.state  # version, byte order, then fields that only records and subarrays have
    if not isinstance(state, tuple) or len(state) != 8 or state[2:5] != (None, None, None):
        raise RefusedError("the type of an array is not plain, save plain numbers or text")
    if state[1] not in ("<", ">", "|"):
        raise RefusedError("the byte order of an array is unknown, save it as .npz")
    return np.dtype(code).newbyteorder(">" if state[1] == ">" else "<")


def build_array(pickled: PickledObject) -> np.ndarray:
    """Make an array of real numbers or text."""
    subtype, _, _ = _args(pickled, _Global, tuple, str | bytes, state=True)
    state = pickled.state
    if subtype.name != "numpy.ndarray" or not isinstance(state, tuple) or len(state) != 5:
        raise RefusedError("an array has an unusual format, save it as .npz")
    _, shape, dtype, fortran_order, raw = state
    if not isinstance(shape, tuple) or not isinstance(dtype, np.dtype):
        raise RefusedError("an array has no shape or type, replace the file")
    return _array_from_bytes(shape, dtype, bool(fortran_order), _raw_bytes(raw))


def _build_array_from_buffer(pickled):
    raw, dtype, shape, order = _args(pickled, bytes | bytearray, np.dtype, tuple, str)
    if order not in ("C", "F"):
        raise RefusedError("an array has an unknown order, save it as .npz")
    return _array_from_bytes(shape, dtype, order == "F", raw)


def _build_scalar(pickled):
    dtype, raw = _args(pickled, np.dtype, str | bytes)
    return _array_from_bytes((), dtype, False, _raw_bytes(raw))[()]


def _build_latin1(pickled):
    text, encoding = _args(pickled, str, str)
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError("bytes have an unusual format, replace the file")
    return text.encode("latin-1")


def _build_empty_bytes(pickled):
    _args(pickled)
    return b""


def build_dictionary(pickled: PickledObject) -> dict:
    """Make the items of a subclass of dict, which Python 2 wrote as a list of pairs."""
    pairs = pickled.args[0] if pickled.args else []
    if len(pickled.args) > 1 or not isinstance(pairs, list) or not all(map(_is_entry, pairs)):
        raise RefusedError(f"{pickled.name} is not a dict with names as keys")
    return {**dict(pairs), **pickled.entries}


def _is_entry(pair) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)


def _build_path(pickled):
    kind = PureWindowsPath if "Windows" in pickled.name else PurePosixPath
    return str(kind(*pickled.args))


def _build_time(pickled):
    """Make an object of `datetime`, whose constructors check what they get."""
    return getattr(datetime, pickled.name.removeprefix("datetime."))(*pickled.args)


def _build_ndarray(pickled):
    raise RefusedError("it calls numpy.ndarray itself, do not trust it")


# The names that numpy 1 and 2 and Python 2 and 3 write for arrays, and the functions that replace them.
_NUMPY_BUILDERS: _Builders = {
    "numpy.ndarray": _build_ndarray,
    "numpy.dtype": build_dtype,
    "numpy.core.multiarray._reconstruct": build_array,
    "numpy._core.multiarray._reconstruct": build_array,
    "numpy.core.multiarray.scalar": _build_scalar,
    "numpy._core.multiarray.scalar": _build_scalar,
    "numpy.core.numeric._frombuffer": _build_array_from_buffer,
    "numpy._core.numeric._frombuffer": _build_array_from_buffer,
    "_codecs.encode": _build_latin1,
    "__builtin__.bytes": _build_empty_bytes,
    "builtins.bytes": _build_empty_bytes,
}

#: Python's own classes that stand beside data, and the functions that replace them: paths become text.
PYTHON_BUILDERS: _Builders = {
    "collections.OrderedDict": build_dictionary,
    **dict.fromkeys(
        (f"{module}.{name}" for module in ("pathlib", "pathlib._local")
         for name in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
        _build_path,
    ),
    **dict.fromkeys(
        (f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")), _build_time
    ),
}  # fmt: skip
