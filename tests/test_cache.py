"""The cache of rows: what is done is kept, what is damaged is made again, nothing wrong comes back."""

import errno
import multiprocessing
import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib.externals.loky import get_reusable_executor

import utils
from storage import cache, parallel

pytestmark = pytest.mark.usefixtures("own_cache")

KEYS = [f"key-{i}" for i in range(10)]
LENGTH = 60


def row_of(i):
    return np.arange(LENGTH, dtype=np.float32) + 100 * i


class Counting:
    """`row_of` that notes for which rows it was called."""

    def __init__(self, interrupt_at=None):
        self.calls = []
        self.interrupt_at = interrupt_at

    def __call__(self, i):
        if i == self.interrupt_at:
            raise KeyboardInterrupt
        self.calls.append(i)
        return row_of(i)


def rows_of(function, keys=KEYS, store="rows"):
    return utils.cached_rows(store, keys, function, lambda i: (i,), "counting")


def expected(n=10):
    return np.stack([row_of(i) for i in range(n)])


def fill(store="rows", n=10):
    """Fill a store with rows and return its file."""
    rows_of(Counting(), [f"key-{i}" for i in range(n)], store)
    return utils.CacheStore(store).path


def sql(path, statement, *values):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


# CacheStore


@settings(max_examples=30, deadline=None)
@given(
    entries=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), st.binary(max_size=40)),
    number=st.integers(0, 10**9),
)
def test_a_store_gives_back_what_was_put(entries, number):
    store = utils.CacheStore(f"store-{number}")
    store.put(entries)
    assert {key: store.get([key]).get(key) for key in entries} == entries
    again = utils.CacheStore(f"store-{number}")
    assert entries.items() <= again.get([*entries, "is not there"]).items()


def test_put_replaces_and_get_takes_any_number_of_keys():
    store = utils.CacheStore("many")
    store.put({str(i): b"old" for i in range(3000)})
    store.put({"5": b"new"})
    found = store.get(str(i) for i in range(-10, 3000))
    assert len(found) == 3000
    assert found["5"] == b"new"
    assert found["6"] == b"old"


def test_stores_of_two_names_are_apart():
    utils.CacheStore("one").put({"k": b"1"})
    assert utils.CacheStore("two").get(["k"]) == {}


def test_the_file_is_for_its_owner_only():
    path = fill()
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("key", ["second", "first", ""])
def test_a_failed_put_keeps_nothing_of_it(key):
    store = utils.CacheStore("whole")
    with pytest.raises((TypeError, AttributeError)):
        store.put({"zeroth": b"0", "first": b"1", key: None})
    assert store.get(["zeroth", "first", key]) == {}


def damage(path, kind):
    """Damage a file in one of the ways of `DAMAGES`."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if kind == "garbage":
        content = np.random.default_rng(0).integers(0, 256, len(content), dtype=np.uint8).tobytes()
    elif kind == "text":
        content = b"this is no database"
    elif kind == "cut in half":
        content = content[:middle]
    elif kind == "cut short":
        content = content[: len(content) * 99 // 100]
    elif kind == "header only":
        content = content[:100]
    elif kind == "empty":
        content = b""
    elif kind == "zeros after the header":
        content[100:] = bytes(len(content) - 100)
    elif kind == "garbage in the middle":
        content[middle : middle + 3000] = bytes([0xA5]) * 3000
    elif kind == "garbage after the first page":
        content[4096:] = bytes([0x5A]) * (len(content) - 4096)
    else:
        raise AssertionError(kind)
    path.write_bytes(bytes(content))


DAMAGES = [
    "garbage", "text", "cut in half", "cut short", "header only", "empty", "zeros after the header",
    "garbage in the middle", "garbage after the first page",
]  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_computed_again(kind):
    path = fill(n=100)
    assert path.stat().st_size > 3 * 4096
    damage(path, kind)
    keys = [f"key-{i}" for i in range(100)]
    np.testing.assert_array_equal(rows_of(Counting(), keys), expected(100))
    counting = Counting()
    np.testing.assert_array_equal(rows_of(counting, keys), expected(100))
    assert counting.calls == []  # the cache works again


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_that_shows_in_an_open_store_is_no_error(kind):
    path = fill(n=100)
    store = utils.CacheStore("rows")
    damage(path, kind)
    found = store.get(f"key-{i}" for i in range(100))
    for key, value in found.items():
        assert value == row_of(int(key.removeprefix("key-"))).tobytes()
    damage(path, kind)
    store.put({"new": b"value"})
    assert store.get(["new"]) == {"new": b"value"}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damaged_bytes_come_back(data):
    """Whatever bytes of the file are overwritten, each row is either right or made again."""
    store = f"fuzz-{uuid.uuid4().hex}"  # never one that an earlier example damaged
    content = bytearray(fill(store).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, 10**6)) % len(content)  # the same draws, whatever the file's length
        piece = data.draw(st.binary(min_size=1, max_size=60))[: len(content) - start]
        content[start : start + len(piece)] = piece
    utils.CacheStore(store).path.write_bytes(content)
    np.testing.assert_array_equal(rows_of(Counting(), store=store), expected())


def test_a_changed_value_or_one_under_another_key_counts_as_missing():
    path = fill()
    sql(path, "UPDATE entries SET value = zeroblob(length(value)) WHERE key = 'key-2'")
    value = sql(path, "SELECT value FROM entries WHERE key = 'key-4'")[0][0]
    sql(path, "UPDATE entries SET value = ? WHERE key = 'key-5'", value)
    counting = Counting()
    np.testing.assert_array_equal(rows_of(counting), expected())
    assert counting.calls == [2, 5]


@pytest.mark.parametrize("value", [b"", b"\0" * 3, b"\0" * 4 * (LENGTH - 1), "text", 7])
def test_a_blob_of_wrong_length_or_kind_counts_as_missing(value):
    path = fill()
    sql(path, "UPDATE entries SET value = ? WHERE key = 'key-3'", value)
    counting = Counting()
    np.testing.assert_array_equal(rows_of(counting), expected())
    assert counting.calls == [3]


@pytest.mark.parametrize("length", [0, 3, 4 * LENGTH - 4, 4 * LENGTH + 4])
def test_rows_of_another_length_are_made_again(length):
    fill()
    utils.CacheStore("rows").put({"key-3": bytes(length)})  # stored in order, but it is no such row
    np.testing.assert_array_equal(rows_of(Counting()), expected())
    counting = Counting()
    np.testing.assert_array_equal(rows_of(counting), expected())
    assert counting.calls == []


def test_a_locked_file_is_no_damage(monkeypatch):
    path = fill()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0.01))
    with closing(connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            utils.CacheStore("rows").get(KEYS)
        other.rollback()
    assert len(utils.CacheStore("rows").get(KEYS)) == len(KEYS)


def put_many(store, start):
    for i in range(start, start + 40):
        utils.CacheStore(store).put({str(i): bytes([i])})


def test_several_processes_write_to_one_store():
    workers = [
        multiprocessing.get_context("fork").Process(target=put_many, args=("shared", start))
        for start in (0, 40, 80)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert utils.CacheStore("shared").get(map(str, range(120))) == {str(i): bytes([i]) for i in range(120)}


# cached_rows


def test_rows_come_in_the_order_of_the_keys_and_are_computed_once():
    counting = Counting()
    np.testing.assert_array_equal(rows_of(counting), expected())
    assert sorted(counting.calls) == list(range(10))
    order = [7, 2, 9]
    again = utils.cached_rows("rows", [KEYS[i] for i in order], counting, lambda i: (order[i],), "")
    np.testing.assert_array_equal(again, expected()[order])
    assert len(counting.calls) == 10


def test_only_missing_rows_are_computed():
    rows_of(Counting(), KEYS[:4])
    counting = Counting()
    np.testing.assert_array_equal(rows_of(counting), expected())
    assert counting.calls == list(range(4, 10))


def test_equal_keys_are_computed_once():
    calls = []

    def constant(i):
        calls.append(i)
        return row_of(3)

    rows = utils.cached_rows("rows", ["same"] * 5, constant, lambda i: (i,), "")
    assert len(calls) == 1
    np.testing.assert_array_equal(rows, np.tile(row_of(3), (5, 1)))


def test_no_keys_give_no_rows():
    assert rows_of(Counting(), []) == []


def test_rows_are_read_only_float32_fresh_or_stored():
    fresh, stored = rows_of(lambda i: row_of(i).astype(np.float64)), rows_of(Counting(interrupt_at=0))
    for rows in (fresh, stored):
        assert all(row.dtype == np.float32 and row.shape == (LENGTH,) for row in rows)
        for row in rows:
            with pytest.raises(ValueError, match="read-only"):
                row[0] = 1


def test_a_function_may_reuse_its_buffer():
    buffer = np.zeros(LENGTH, dtype=np.float32)

    def reuse(i):
        buffer[:] = row_of(i)
        return buffer

    np.testing.assert_array_equal(rows_of(reuse), expected())


@pytest.mark.parametrize("at", [1, 5, 9])
def test_an_interruption_keeps_what_is_done(at):
    interrupted = Counting(interrupt_at=at)
    with pytest.raises(KeyboardInterrupt):
        rows_of(interrupted)
    assert interrupted.calls == list(range(at))
    counting = Counting()
    np.testing.assert_array_equal(rows_of(counting), expected())
    assert counting.calls == list(range(at, 10))


def test_rows_are_saved_along_the_way(monkeypatch):
    """A process that is killed has no chance to save at its end."""
    monkeypatch.setattr(cache, "_SAVE_INTERVAL", -1.0)
    seen = []

    def look(i):
        seen.append(len(utils.CacheStore("rows").get(KEYS)))
        return row_of(i)

    rows_of(look)
    assert seen == list(range(10))


def test_the_error_of_a_row_reaches_the_caller():
    def refuse(i):
        raise ValueError(f"row {i} is bad")

    with pytest.raises(ValueError, match="row 0 is bad"):
        rows_of(refuse)


def shifted_row(values, shift):
    if values[0] < 0:
        raise ValueError("a negative start")
    return values + shift


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_parallel_and_serial_rows_are_the_same(monkeypatch, backend):
    keys = [f"key-{i}" for i in range(50)]

    def arguments(i):
        return row_of(i), 0.5

    serial = utils.cached_rows("serial", keys, shifted_row, arguments, "")
    monkeypatch.setattr(cache, "_PARALLEL_ROWS", 5)
    monkeypatch.setattr(cache, "_TASK_ROWS", 7)
    with joblib.parallel_config(backend=backend):
        parallel = utils.cached_rows("parallel", keys, shifted_row, arguments, "")
    np.testing.assert_array_equal(parallel, serial)
    np.testing.assert_array_equal(serial, expected(50) + 0.5)
    assert utils.CacheStore("parallel").get(keys) == utils.CacheStore("serial").get(keys)


def test_the_error_of_a_parallel_row_reaches_the_caller_and_no_wrong_row_is_kept(monkeypatch):
    monkeypatch.setattr(cache, "_PARALLEL_ROWS", 5)
    monkeypatch.setattr(cache, "_TASK_ROWS", 2)
    keys = [f"key-{i}" for i in range(40)]
    with joblib.parallel_config(backend="threading"), pytest.raises(ValueError, match="a negative start"):
        utils.cached_rows("rows", keys, shifted_row, lambda i: (row_of(i if i < 30 else -i), 0), "")
    kept = utils.CacheStore("rows").get(keys)
    assert len(kept) <= 30
    for key, value in kept.items():
        assert value == row_of(int(key.removeprefix("key-"))).tobytes()


class InterruptedBar:
    """A progress bar on which the user presses Ctrl-C after a few updates."""

    updates = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, n):
        self.updates += 1
        if self.updates == 3:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:.*tasks.*cancelled")
def test_an_interruption_of_the_parallel_run_keeps_what_is_done(monkeypatch):
    monkeypatch.setattr(cache, "_PARALLEL_ROWS", 5)
    monkeypatch.setattr(cache, "_TASK_ROWS", 2)
    keys = [f"key-{i}" for i in range(40)]
    with monkeypatch.context() as patch, joblib.parallel_config(backend="threading"):
        patch.setattr(cache, "progress", lambda *arguments, **options: InterruptedBar())
        with pytest.raises(KeyboardInterrupt):
            rows_of(row_of, keys)
    assert set(utils.CacheStore("rows").get(keys)) == set(keys[:6])
    np.testing.assert_array_equal(rows_of(row_of, keys), expected(40))


# cached_batches


def test_batches_are_computed_in_one_call_each():
    calls = []

    def batch(positions):
        calls.append(list(positions))
        return expected()[list(positions)]

    np.testing.assert_array_equal(utils.cached_batches("b", KEYS, batch, "", 4), expected())
    assert calls == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    np.testing.assert_array_equal(utils.cached_batches("b", KEYS, batch, "", 4), expected())
    assert len(calls) == 3


def test_batches_hold_only_what_is_missing():
    fill(n=5)
    calls = []

    def batch(positions):
        calls.extend(positions)
        return expected()[list(positions)]

    np.testing.assert_array_equal(utils.cached_batches("rows", KEYS, batch, "", 3), expected())
    assert calls == list(range(5, 10))


def test_an_interrupted_batch_keeps_the_batches_before_it():
    def interrupted(positions):
        if 6 in positions:
            raise KeyboardInterrupt
        return expected()[list(positions)]

    with pytest.raises(KeyboardInterrupt):
        utils.cached_batches("b", KEYS, interrupted, "", 3)
    assert set(utils.CacheStore("b").get(KEYS)) == set(KEYS[:6])


@pytest.mark.parametrize("wrong", [2, 4])
def test_a_batch_with_a_wrong_number_of_rows_is_an_error(wrong):
    with pytest.raises(ValueError):
        utils.cached_batches("b", KEYS[:3], lambda positions: expected()[:wrong], "", 3)
    assert utils.CacheStore("b").get(KEYS[wrong:]) == {}


# Disks that are full or cannot be written to, and what a killed run leaves


def test_a_store_on_a_full_disk_says_what_to_do(monkeypatch):
    connect = sqlite3.connect

    def connect_to_full_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 2")
        return connection

    store = utils.CacheStore("rows")
    monkeypatch.setattr(sqlite3, "connect", connect_to_full_disk)
    with pytest.raises(OSError, match=r"rows.sqlite: .*disk is full\); .*set ANONFACES_CACHE"):
        store.put({"key": bytes(100_000)})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_errors_in_writing_name_the_file(monkeypatch, tmp_path, number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=rf"{os.strerror(number)}: '{tmp_path}/a.csv'") as error:
        utils.save_atomic(tmp_path / "a.csv", fail)
    assert error.value.errno == number and list(tmp_path.glob("*")) == []
    monkeypatch.setattr(os, "fsync", fail)
    explained = rf"cannot write to the cache \({os.strerror(number)}.*ANONFACES_CACHE"
    with pytest.raises(OSError, match=f"folder/key.npz: {explained}"):
        utils.cached_arrays("folder", "key", lambda: {"a": 1})
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match=f"new: {explained}"):
        utils.cache_folder("new")


def place_of(array):
    return array.filename


def test_shared_arrays_lie_in_the_cache_and_are_removed_after_a_kill(own_cache):
    get_reusable_executor().shutdown()  # it shares arrays in the cache of an earlier test
    array = np.zeros(1 << 18)
    places = list(utils.run_parallel([joblib.delayed(place_of)(array)] * 2, 2))
    shared = Path(places[0]).parents[1]
    assert own_cache in shared.parents and shared.stat().st_mode & 0o077 == 0
    mine, killed = (
        shared / f"joblib_memmapping_folder_{process}_a_b" for process in (os.getpid(), 2**22 + 1)
    )
    for folder in (mine, killed):
        folder.mkdir()
        (folder / "photos.pkl").touch()
    list(utils.run_parallel([joblib.delayed(len)("a")]))
    assert killed.exists()  # once per process
    parallel._remove_left_over.cache_clear()
    list(utils.run_parallel([joblib.delayed(len)("a")]))
    assert mine.exists() and not killed.exists()


def test_shared_arrays_on_a_full_disk_say_what_to_do(monkeypatch):
    class Full:
        def __reduce__(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        OSError, match="shared_.*: cannot write to the cache .*No space left.*ANONFACES_CACHE"
    ):
        list(utils.run_parallel([joblib.delayed(len)([Full()])] * 2, 2))
    with pytest.raises(TypeError, match="unrelated"):
        list(utils.run_parallel([joblib.delayed(fail_unrelated)()] * 2, 2))


def fail_unrelated():
    raise TypeError("unrelated")
