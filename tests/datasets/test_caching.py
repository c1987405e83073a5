"""Entries are built once, shared, and not believed when in doubt."""

import errno
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from datasets import caching
from datasets.caching import FORMAT, cache_sequences, identify
from datasets.entries import HEADER, write_entry
from tests.conftest import write_image
from tests.datasets.cached import check_same, files, on_disk, opened
from utils.errors import InputError

processes = multiprocessing.get_context("fork")


def test_without_a_cache_the_sequences_are_as_they_were(data, place):
    sequences = opened(data)
    assert cache_sequences(sequences, "none", place) == (sequences, [])
    assert not place.exists()


def test_the_key_changes_with_each_of_its_parts(data, tmp_path, place, monkeypatch):
    first = opened(data)[0]
    keys = [identify(first, place).key]
    resized = [first.resized((24, 24), m) for m in ("nearest", "bicubic")]
    keys += [identify(s, place).key for s in (*resized, first.resized((24, 25), "nearest"))]
    shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copy2)
    keys.append(identify(opened(tmp_path / "copy")[0], place).key)
    for part in ("frame_paths", "mask_paths", "centroid_paths"):
        path = getattr(first, part)[3]
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        keys.append(identify(first, place).key)
    path.write_bytes(path.read_bytes() + b"0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    keys.append(identify(first, place).key)
    monkeypatch.setattr(caching, "FORMAT", FORMAT + 1)
    keys.append(identify(first, place).key)
    monkeypatch.setattr(caching.cv2, "__version__", "0")
    keys.append(identify(first, place).key)
    assert len(set(keys)) == len(keys) == 11


def test_runs_share_entries_and_build_none_twice(data, place, monkeypatch):
    on_disk(opened(data), place)
    monkeypatch.setattr(caching, "_build", None)  # would raise
    cached = on_disk([*opened(data), opened(data)[0]], place)
    assert [s.name for s in cached] == ["s1", "s2", "s3", "s1"]


def flip(position):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(content)

    return damage


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "header only": lambda path: os.truncate(path, HEADER),
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "too long": lambda path: path.write_bytes(path.read_bytes() + b"0"),
    "flipped bit in the digest": flip(3),
    "flipped bit in the header": flip(80),
    "flipped bit in the first page": flip(HEADER + 5),
    "flipped bit in the last page": flip(-1),
    "blocks that were never written": lambda path: path.write_bytes(
        path.read_bytes()[:HEADER] + bytes(path.stat().st_size - HEADER)
    ),
    "another one": lambda path: shutil.copy(max(path.parent.glob("s2*")), path),
    "no entry at all": lambda path: path.write_text("hello\n" * 4000),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_not_believed_but_built_anew(data, place, damage):
    sequences = opened(data)
    on_disk(sequences, place)
    before = {name: path.stat().st_ino for name, path in files(place).items()}
    (path,) = place.glob("s1*")
    damage(path)
    check_same(on_disk(sequences, place)[0], sequences[0])
    after = {name: path.stat().st_ino for name, path in files(place).items()}
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == [path.name]


def test_changed_data_take_the_place_of_the_old(data, place):
    old = on_disk(opened(data), place)
    first = old[0].frames(0, 1).copy()
    path = opened(data)[0].frame_paths[0]
    write_image(path, 255 - first[0])
    new = on_disk(opened(data), place)
    np.testing.assert_array_equal(new[0].frames(0, 1), 255 - first)
    np.testing.assert_array_equal(old[0].frames(0, 1), first)  # a run that goes on keeps its own
    assert len(files(place)) == 3


def test_a_frame_that_comes_later_is_seen(data, place):
    assert len(on_disk(opened(data), place)[2]) == 9
    for kind in ("images", "masks", "masks_centroid"):
        shutil.copy(data / f"s3/{kind}/1.png", data / f"s3/{kind}/10.png")
    longer = on_disk(opened(data), place)[2]
    np.testing.assert_array_equal(longer.frames(9, 10), longer.frames(0, 1))


def test_data_that_change_while_they_are_read_are_an_error(data, place, monkeypatch):
    def write(file, sequence, *about):
        write_entry(file, sequence, *about)
        sequence.frame_paths[-1].touch()

    monkeypatch.setattr(caching, "write_entry", write)
    with pytest.raises(InputError, match="images: changed while it was read"):
        cache_sequences(opened(data)[:1], "disk", place)
    assert not files(place)


def test_an_unreadable_image_is_named_and_leaves_nothing_torn(data, place):
    (data / "s2/images/4.png").write_bytes(b"torn")
    for mode in ("disk", "ram"):
        with pytest.raises(InputError, match=r"s2/images/4\.png: not a readable image"):
            cache_sequences(opened(data), mode, place)
    assert not [name for name in files(place) if name.startswith(("s2", "."))]


def slow_builder(root, place, begun):
    """Build in a process of its own, saying when; it never ends."""

    def write(file, *_):
        file.write(b"half of it")
        file.flush()
        begun.set()
        time.sleep(1000)

    caching.write_entry = write
    cache_sequences(opened(root), "disk", place)


def test_a_killed_builder_leaves_nothing_that_is_believed(data, place):
    begun = processes.Event()
    builder = processes.Process(target=slow_builder, args=(data, place, begun))
    builder.start()
    assert begun.wait(60)
    assert [name for name in files(place) if name.startswith(".")]
    builder.kill()
    builder.join()
    sequences = opened(data)
    for one, other in zip(on_disk(sequences, place), sequences, strict=True):
        check_same(one, other)
    assert len(files(place)) == 3


def test_an_interrupted_builder_cleans_up(data, place, monkeypatch):
    def write(file, *_):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(caching, "write_entry", write)
    with pytest.raises(KeyboardInterrupt):
        cache_sequences(opened(data)[:1], "disk", place)
    assert not files(place)


def build_and_say(root, place, start, answers):
    built = []
    real = caching._build
    caching._build = lambda jobs, place: (built.extend(jobs), real(jobs, place))
    start.wait(60)
    cached = on_disk(opened(root), place)
    answers.put((len(built), [int(s.frames(0, len(s)).sum()) for s in cached]))


def test_two_builders_at_once_do_the_work_once(data, place):
    start, answers = processes.Barrier(2), processes.Queue()
    arguments = (data, place, start, answers)
    builders = [processes.Process(target=build_and_say, args=arguments) for _ in range(2)]
    for builder in builders:
        builder.start()
    said = [answers.get(timeout=60) for _ in builders]
    for builder in builders:
        builder.join()
    assert sorted(built for built, _ in said) == [0, 3]
    sums = [int(s.frames(0, len(s)).sum()) for s in opened(data)]
    assert said[0][1] == said[1][1] == sums
    assert len(files(place)) == 3


def test_without_locks_two_builders_do_it_twice(data, place, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(caching.fcntl, "flock", refuse)
    sequences = opened(data)
    place.mkdir()
    (place / ".other-builder.sequence").write_bytes(b"half of it")
    check_same(on_disk(sequences, place)[0], sequences[0])
    assert (place / ".other-builder.sequence").exists()  # it may be at work


def test_a_folder_that_cannot_be_written_to_is_a_warning(data, tmp_path):
    (tmp_path / "file").write_text("")
    sequences = opened(data)
    same, (warning,) = cache_sequences(sequences, "disk", tmp_path / "file/cache")
    assert same is sequences
    assert str(tmp_path / "file/cache") in warning
    assert "Not a directory" in warning
    assert "--cache none" in warning


def test_a_disk_without_enough_space_is_a_warning(data, place, monkeypatch):
    usage = shutil.disk_usage(data)._replace(free=caching.SPARE + 1000)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: usage)
    sequences = opened(data)
    same, (warning,) = cache_sequences(sequences, "disk", place)
    assert same is sequences
    assert "GB are free" in warning
    assert not files(place)


def test_a_disk_that_fills_up_is_left_as_it_was(data, place, monkeypatch):
    on_disk(opened(data)[:1], place)

    def write(file, sequence, *about):
        if sequence.name == "s3":
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        write_entry(file, sequence, *about)

    monkeypatch.setattr(caching, "write_entry", write)
    sequences = opened(data)
    same, (warning,) = cache_sequences(sequences, "disk", place)
    assert same is sequences
    assert "Disk quota exceeded" in warning
    assert [name[:2] for name in files(place)] == ["s1"]


def test_memory_that_does_not_suffice_is_an_error(data, monkeypatch):
    monkeypatch.setattr(caching, "decoded_size", lambda sequence: 2**50)
    with pytest.raises(InputError, match=r"--cache ram: .* GB of memory .* --cache disk"):
        cache_sequences(opened(data), "ram")


def test_processes_that_share_a_machine_share_its_memory(data, monkeypatch):
    (available,) = (
        1024 * int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    sequences = opened(data)[:1]
    monkeypatch.setattr(caching, "decoded_size", lambda sequence: available // 3)
    cache_sequences(sequences, "ram")
    monkeypatch.setattr(caching, "on_this_machine", lambda: 4)
    with pytest.raises(InputError, match=r"--cache ram: the frames take .* GB in 4 processes, but"):
        cache_sequences(sequences, "ram")


def test_the_estimate_is_near_the_size_on_disk(data, place):
    for sequence, cached in zip(opened(data), on_disk(opened(data), place), strict=True):
        assert 0 <= caching.decoded_size(sequence) - cached.entry.stat().st_size + 8192 < 3 * HEADER


def test_opening_an_entry_says_that_it_is_used(data, place):
    (cached,) = on_disk(opened(data)[:1], place)
    os.utime(cached.entry, (0, 0))
    on_disk(opened(data)[:1], place)
    assert cached.entry.stat().st_mtime > time.time() - 3600
