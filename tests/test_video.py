"""Videos -> videos that can be shared: streams, tracks, and whole runs on composed clips with known faces."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import Actor, compose, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import journal_of, run, scene

import release.videos
import video.searching
from release import gate
from release.journal import REPLACED
from video import streams, tracks

pytestmark = pytest.mark.usefixtures("module_cache")

untimed = settings(deadline=None, max_examples=25)

SIDE = 2048


def read(path):
    return list(streams.read_frames(path, SIDE))


def gradient(n=20, size=(64, 96)):
    """Frames that tell their number by a bar, and up by a corner."""
    frames = np.full((n, *size, 3), 90, dtype=np.uint8)
    for number in range(n):
        frames[number, :, 3 * number : 3 * number + 12] = (40, 180, 60)
        frames[number, :16, :16] = (220, 40, 30)
    return list(frames)


# ----------------------------------------------------------------------------------------------------------
# Streams
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.mp4", "libx264", "yuv420p", 12),
        ("b.mkv", "libx264", "yuv420p10le", 12),
        ("c.webm", "libvpx", "yuv420p", 25),
        ("d.avi", "mpeg4", "yuv420p", 25),
        ("e.mov", "libx264", "yuv444p", 12),
        ("f.gif", "gif", "rgb8", 60),
    ],
)
def test_frames_of_every_format_are_read(tmp_path, name, codec, pix_fmt, tolerance):
    frames = gradient()
    write(tmp_path / name, frames, codec, options={}, pix_fmt=pix_fmt)
    found = read(tmp_path / name)
    assert [frame.number for frame in found] == list(range(len(frames)))
    times = np.array([frame.time for frame in found])
    np.testing.assert_allclose(np.diff(times), streams.TICK.denominator / 25, atol=100)
    for frame, image in zip(found, frames, strict=True):
        away = np.abs(frame.image.astype(int) - image).max(axis=2)
        assert np.median(away) < tolerance and (away < 2 * tolerance).mean() > 0.8


def test_rotation_is_applied(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, gradient())
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    turn = [0, 1 << 16, 0, -(1 << 16) % (1 << 32), 0, 0, 0, 0, 1 << 30]  # a quarter turn clockwise
    data[start : start + 36] = b"".join(value.to_bytes(4, "big") for value in turn)
    path.write_bytes(data)
    image = read(path)[10].image
    assert image.shape == (96, 64, 3)
    assert image[4, -4, 0] > 180  # the red corner is now on the right
    assert image[4, 4, 0] < 120


def test_pixels_become_square_and_large_frames_smaller(tmp_path):
    write(tmp_path / "a.mkv", gradient(4), shape=Fraction(4, 3))
    assert read(tmp_path / "a.mkv")[0].image.shape == (64, 128, 3)
    assert next(streams.read_frames(tmp_path / "a.mkv", 48)).image.shape == (24, 48, 3)


@given(
    gaps=st.lists(st.integers(1, 400), min_size=2, max_size=30),
    odd=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
@untimed
def test_segments_are_joined_with_their_times_and_no_metadata(tmp_path_factory, gaps, odd):
    folder = tmp_path_factory.mktemp("joined")
    times = np.cumsum(gaps).tolist()
    size = (32 + odd[0], 48 + odd[1])
    frames = [np.full((*size, 3), 40 + 6 * number, dtype=np.uint8) for number in range(len(times))]
    parts = [folder / "0.mp4", folder / "1.mp4"]
    for part, own in zip(parts, (frames[:1], frames[1:]), strict=True):
        writer = streams.SegmentWriter(part, Fraction(25), 10)
        for frame in own:
            writer.add(frame)
        writer.close()
    target = folder / "joined.mp4"
    streams.join_segments(parts, [90 * time for time in times], target)
    found = read(target)
    assert [frame.time // 90 for frame in found] == [time - times[0] for time in times]
    for frame, image in zip(found, frames, strict=True):
        assert frame.image.shape[:2] == (32 + 2 * odd[0], 48 + 2 * odd[1])
        assert np.abs(frame.image[: size[0], : size[1]].astype(int) - image).max() <= 6
    assert streams.foreign_content(target) == ""
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands"}
        assert set(container.streams[0].metadata) <= {"language", "handler_name"}


def test_foreign_content_is_found(tmp_path):
    write(tmp_path / "a.mp4", gradient(), metadata={"title": "holiday"})
    assert "another" in streams.foreign_content(
        tmp_path / "a.mp4"
    ) or "other bytes" in streams.foreign_content(tmp_path / "a.mp4")
    writer = streams.SegmentWriter(tmp_path / "0.mp4", Fraction(25), 10)
    writer.add(gradient(1)[0])
    writer.close()
    streams.join_segments([tmp_path / "0.mp4"], [0], tmp_path / "b.mp4")
    assert streams.foreign_content(tmp_path / "b.mp4") == ""
    (tmp_path / "c.mp4").write_bytes((tmp_path / "b.mp4").read_bytes() + b"hello")
    assert "other bytes" in streams.foreign_content(tmp_path / "c.mp4")
    (tmp_path / "d.mp4").write_bytes(b"hello")
    assert streams.foreign_content(tmp_path / "d.mp4").startswith("not a video")


def add_sound(path, target, seconds):
    """Add a tone to a video."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream("aac", rate=44100, layout="mono")
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
        wave = np.sin(np.arange(int(44100 * seconds)) / 20).astype(np.float32)[None]
        for start in range(0, wave.shape[1], 1024):
            piece = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(wave[:, start : start + 1024]), "fltp", "mono"
            )
            piece.sample_rate, piece.pts = 44100, start
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))


def bad_files(folder):
    """Files that cannot be read as videos: name -> words of the reason."""
    write(folder / "whole.mp4", gradient(60))
    write(folder / "whole.mkv", gradient(60))
    write(folder / "whole.gif", gradient(60), "gif", options={}, pix_fmt="rgb8")
    for name, target in (("whole.mp4", "cut.mp4"), ("whole.mkv", "cut.mkv"), ("whole.gif", "cut.gif")):
        data = (folder / name).read_bytes()
        (folder / target).write_bytes(data[: len(data) * 6 // 10])
    (folder / "text.mp4").write_text("no video " * 40)
    (folder / "empty.mov").touch()
    with av.open(str(folder / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        piece.sample_rate, piece.pts = 44100, 0
        container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    with av.open(str(folder / "none.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    for name in ("whole.mp4", "whole.mkv", "whole.gif"):
        (folder / name).unlink()
    return {
        "cut.mp4": "cannot be read as a video",
        "cut.mkv": "file is cut short",
        "text.mp4": "cannot be read as a video",
        "empty.mov": "file is empty",
        "sound.mp4": "holds no video, only sound",
        "none.mp4": "holds no video; remove it",
    }


def test_bad_files_get_a_sentence(tmp_path):
    for name, words in (bad_files(tmp_path) | {"cut.gif": "file is cut short"}).items():
        with pytest.raises(streams.VideoError, match=words) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)


# ----------------------------------------------------------------------------------------------------------
# Tracks
# ----------------------------------------------------------------------------------------------------------


def boxes_of(centres, size=40.0):
    centres = np.asarray(centres, dtype=float)
    return np.hstack([centres - size / 2, centres + size / 2])


def linked(places, **options):
    """Tracks of faces at places {frame: [(x, y), ...]}, as lists of (frame, centre)."""
    frames = np.array([frame for frame, own in places.items() for _ in own])
    centres = np.array([place for own in places.values() for place in own], dtype=float)
    options = {"cuts": [], "n_frames": 1 + max(places), "longest_gap": 12} | options
    made = tracks.link(frames, boxes_of(centres), **options)
    assert sorted(row for track in made for row in track.rows) == list(range(len(frames)))
    return [([(int(frames[row]), tuple(centres[row])) for row in track.rows], track) for track in made]


def test_two_faces_side_by_side_are_two_tracks():
    made = linked({i: [(50 + 3 * i, 60), (250 - 3 * i, 160)][:: 1 if i % 2 else -1] for i in range(40)})
    assert len(made) == 2
    for own, track in made:
        assert len(own) == 40 and not track.crowded
        assert len({y for _, (_, y) in own}) == 1


def test_a_crossing_never_carries_one_face_over_to_the_other():
    places = {i: [(50 + 5 * i, 100), (250 - 5 * i, 110)] for i in range(41)}
    for own, track in linked(places):
        assert track.crowded or len({y for _, (_, y) in own}) == 1
    alone = [own for own, track in linked(places) if not track.crowded]
    assert sum(map(len, alone)) > 50


def test_a_track_goes_on_after_a_gap_and_ends_at_a_cut():
    places = {i: [(50 + 4 * i, 80)] for i in range(40) if not 15 <= i < 25}
    assert len(linked(places)) == 1
    assert len(linked(places, longest_gap=5)) == 2
    assert [len(own) for own, _ in linked(places, cuts=[30])] == [20, 10]
    assert [track.bounds for _, track in linked(places, cuts=[30])] == [(0, 29), (30, 39)]


@given(
    st.floats(-6, 6),
    st.floats(-6, 6),
    st.floats(0.97, 1.03),
    st.floats(-0.05, 0.05),
    st.integers(0, 2**31),
    st.data(),
)
@untimed
def test_a_face_that_moves_evenly_is_followed_without_a_lag(x, y, growth, turn, seed, data):
    shape = np.random.default_rng(seed).normal(0, 20, (68, 2))
    shape[tracks.detection.LEFT_EYE] += (-30, 0)
    shape[tracks.detection.RIGHT_EYE] += (30, 0)
    shape -= shape.mean(axis=0)

    def place(frame):
        angle, size = turn * frame, growth**frame
        rotation = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return shape @ rotation.T + (200 + x * frame, 200 + y * frame)

    frames = np.array(sorted(data.draw(st.sets(st.integers(0, 30), min_size=20))))
    landmarks = np.stack([place(frame) for frame in frames])
    boxes = np.hstack([landmarks.min(axis=1), landmarks.max(axis=1)])
    course = tracks.follow(frames, boxes, landmarks, np.ones(len(frames), bool), (0, 30))
    assert course.clear[np.searchsorted(np.arange(31), frames)].mean() > 0.8
    for frame in np.flatnonzero(course.clear):
        away = np.linalg.norm(course.landmarks[frame] - place(frame), axis=1).mean()
        assert away < 1 + 0.03 * np.linalg.norm([x, y])
    np.testing.assert_array_equal(course.boxes[frames], boxes)


def test_jitter_is_smoothed_and_wrong_landmarks_are_not_believed_for_long():
    random = np.random.default_rng(0)
    shape = random.normal(0, 30, (68, 2))
    shape[16] = shape[0] + (100, 0)
    clean = shape + np.arange(40)[:, None, None] * [3.0, 1.0]
    noisy = clean + random.normal(0, 1.5, (40, 1, 2)) + random.normal(0, 1.5, clean.shape)
    boxes = boxes_of(clean.mean(axis=1))
    course = tracks.follow(np.arange(40), boxes, noisy, np.ones(40, bool), (0, 39))

    def jitter(points):
        return np.abs(np.diff(points, n=2, axis=0)).mean()

    assert jitter(course.landmarks) < 0.35 * jitter(noisy)
    assert (
        np.linalg.norm(course.landmarks - clean, axis=2).mean() < np.linalg.norm(noisy - clean, axis=2).mean()
    )


def test_uncertain_landmarks_are_filled_for_a_moment_only():
    frames = np.arange(30)
    landmarks = np.random.default_rng(0).normal(100, 30, (1, 68, 2)) + frames[:, None, None]
    usable = ~np.isin(frames, [5, 6, *range(12, 20), 21, 28])
    course = tracks.follow(frames, boxes_of(landmarks.mean(axis=1)), landmarks, usable, (0, 33))
    assert course.clear[[5, 6]].all()
    assert not course.clear[12:20].any() and not course.clear[30:].any()
    assert course.found[:30].all() and not course.found[30:].any()
    # Beyond the last sighting, the box covers where the face was and where it may have gone.
    assert (course.boxes[33, :2] <= course.boxes[29, :2]).all()
    assert (course.boxes[33, 2:] >= course.boxes[29, 2:] + 3).all()


# ----------------------------------------------------------------------------------------------------------
# Whole runs
# ----------------------------------------------------------------------------------------------------------


def line(start, end, n, tall, tilt=0.0, wide=1.0):
    """A head that moves evenly from one point to another, sways by some degrees, and turns: its width varies."""

    def place(i):
        x, y = np.array(start) + (np.array(end) - start) * i / (n - 1)
        return x, y, tall, tilt * np.sin(i / 5), wide + (1 - wide) * np.cos(i / 7) ** 2

    return place


def composed(orl):
    """Clips of five people: name -> clip."""

    def actor(row, place):
        return Actor(orl.images[row], place)

    n = 44
    crossing = [
        actor(0, line((60, 112), (260, 124), n, 120, 6, 0.85)),
        actor(70, line((262, 118), (58, 118), n, 104, -5)),
    ]

    def in_scene(which, place):
        return lambda i: place(i) if (i >= 20) == which else None

    cut = [
        actor(140, in_scene(False, line((120, 110), (130, 110), n, 130))),
        actor(200, in_scene(True, line((120, 112), (130, 112), n, 130))),
    ]

    def passing(i):
        left = 20 + 14 * (i - 24)
        return [(left, 40, left + 40, 200)] if i >= 24 else []

    leaving = [actor(310, line((90, 70), (185, 80), 30, 88, 4))]
    return {
        "crossing.mp4": compose(crossing, n),
        "cut.mkv": compose(cut, n, (220, 240), scene=lambda i: int(i >= 20), covers=passing),
        "leaving.gif": compose(leaving, 30, (150, 180), light=lambda i: 1 - 0.02 * i),
    }


@pytest.fixture(scope="module")
def clips(orl):
    return composed(orl)


@pytest.fixture(scope="module")
def source(orl, clips, tmp_path_factory):
    """Three clips of five people, a photo of one of them, and files that are no videos."""
    folder = tmp_path_factory.mktemp("films")
    bad_files(folder)
    (folder / "cut.gif").unlink()
    write(
        folder / "silent.mp4",
        clips["crossing.mp4"].frames,
        metadata={"title": "somebody", "location": "+48+016/"},
    )
    add_sound(folder / "silent.mp4", folder / "crossing.mp4", 1.5)
    (folder / "silent.mp4").unlink()
    write(folder / "cut.mkv", clips["cut.mkv"].frames)
    write(folder / "leaving.gif", clips["leaving.gif"].frames, "gif", options={}, pix_fmt="rgb8")
    Image.fromarray(scene([orl.images[2]], [(140, 130, 190, 4)], size=(260, 280))).save(folder / "anna.png")
    return folder


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    """Short segments, and a record of all faces that are placed on frames: (clip's size, frame, box, surrogate)."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video.searching, "SEGMENT", 16)
        patch.setattr(release.videos, "SEGMENT", 16)
        place = release.videos._place

        def noting(courses, frame, size):
            faces = place(courses, frame, size)
            seen.extend(
                (size, frame, face.box, face.surrogate if face.landmarks is not None else None)
                for face in faces
            )
            return faces

        patch.setattr(release.videos, "_place", noting)
        yield seen


@pytest.fixture(scope="module")
def finished(source, placed, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    placed.clear()
    assert run(source, out, "--k", "2") == 0
    placed.append(None)  # the end of this run
    return out


def files_of(out):
    ledger = json.loads((out.with_name(out.name + "-private") / "ledger.json").read_text())
    return {entry["photo"]: out / entry["file"] for entry in ledger["photos"] if entry["file"]}


def same_size(frames, size):
    return [frame.image[: size[0], : size[1]] for frame in frames]


def in_the_clear(before, after, marks, least=24):
    """Marked faces, at least so large within the frame, that can be seen as they were: (frame, actor)."""
    found = []
    for i, row in enumerate(marks):
        for actor, box in enumerate(row):
            if box is None:
                continue
            box = np.concatenate([np.maximum(box[:2], 0), np.minimum(box[2:], before[i].shape[1::-1])])
            if (box[2:] - box[:2]).min() >= least and gate.is_left(before[i], after[i], box, REPLACED):
                found.append((i, actor))
    return found


def change(frames, marks):
    """Mean change of marked faces from one frame to the next, in grey levels."""
    changes = []
    for i in range(1, len(frames)):
        for box in filter(lambda box: box is not None, marks[i]):
            left, top, right, bottom = np.rint(np.maximum(box, 0)).astype(int)
            now, then = (frames[j][top:bottom, left:right].astype(float) for j in (i, i - 1))
            changes.append(np.abs(now - then).mean())
    return float(np.mean(changes))


def test_no_marked_face_is_in_the_clear_on_any_frame(source, finished, clips, tmp_path):
    for name, clip in clips.items():
        before, after = (
            same_size(read(path), clip.frames[0].shape) for path in (source / name, files_of(finished)[name])
        )
        assert len(before) == len(after) == len(clip.frames)
        assert in_the_clear(before, after, clip.marks) == []
        # The measure would notice: encoded alone, every face is in the clear.
        writer = streams.SegmentWriter(tmp_path / "same.mp4", Fraction(25), 18)
        for frame in before:
            writer.add(frame)
        writer.close()
        n_marks = len(in_the_clear(before, before, clip.marks))
        same = same_size(read(tmp_path / "same.mp4"), clip.frames[0].shape)
        assert n_marks > 20 and len(in_the_clear(before, same, clip.marks)) > 0.7 * n_marks  # GIF is noisy


def test_every_person_keeps_one_surrogate(finished, placed, clips):
    surrogates, shown = {}, placed[: placed.index(None)]
    for name, clip in clips.items():
        for i, row in enumerate(clip.marks):
            for actor, mark in enumerate(row):
                if mark is None:
                    continue
                # The face that is placed nearest to the mark: beside it, another one may cross.
                near = [
                    (np.abs(box - mark).max(), id(surrogate), surrogate is not None)
                    for size, frame, box, surrogate in shown
                    if size == clip.frames[0].shape[:2] and frame == i
                ]
                _, own, is_shown = min(near)
                own = {own} if is_shown else set()
                surrogates.setdefault((name, actor), []).append(own)
    assert len(surrogates) == 5
    for own in surrogates.values():
        assert len(set().union(*own)) == 1
        assert np.mean([bool(one) for one in own]) > 0.6  # shown on most frames, blurred on the others


def test_photo_and_video_of_one_person_share_a_cluster(finished):
    records = journal_of(finished)
    (anna,) = records["anna.png"]["faces"]
    people = {
        track["person"]: track["cluster"] for track in records["crossing.mp4"]["tracks"] if track["person"]
    }
    assert len(people) == 2 and people[anna["person"]] == anna["cluster"]
    everyone = {track["person"] for record in records.values() for track in record.get("tracks", ())} - {None}
    assert len(everyone) == 5


def test_faces_do_not_flicker(source, finished, clips):
    for name, clip in clips.items():
        before, after = (
            same_size(read(path), clip.frames[0].shape) for path in (source / name, files_of(finished)[name])
        )
        assert change(after, clip.marks) < 1.5 * change(before, clip.marks)


def test_released_videos_hold_frames_alone(source, finished):
    for name, path in files_of(finished).items():
        if name == "anna.png":
            continue
        assert path.suffix == ".mp4" and b"somebody" not in path.read_bytes()
        assert streams.foreign_content(path) == ""
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video"]
        before, after = read(source / name), read(path)
        np.testing.assert_allclose([f.time for f in before], [f.time for f in after], atol=1)


def test_bad_videos_lose_nothing_else(source, finished):
    records = journal_of(finished)
    for name in ("cut.mp4", "text.mp4", "sound.mp4", "empty.mov", "none.mp4"):
        assert records[name]["status"] == "damaged" and name in records[name]["reason"]
    assert len(files_of(finished)) == 4


def test_audit_searches_videos(source, finished, clips, tmp_path):
    ledger = finished.with_name("out-private") / "ledger.json"
    report = release.audit_release(finished, ledger=ledger)
    assert report.passed and "all in the ledger" in report["faces"].detail
    # A video whose faces were left as they are is noticed.
    names = {entry["photo"]: entry for entry in json.loads(ledger.read_text())["photos"]}
    told = json.loads(ledger.read_text())
    for entry in told["photos"]:
        if entry["photo"] == "crossing.mp4":
            entry["faces"] = []
    (tmp_path / "ledger.json").write_text(json.dumps(told))
    assert not release.audit_release(finished, ledger=tmp_path / "ledger.json")["faces"].passed
    assert names["crossing.mp4"]["faces"]


class Killed(BaseException):
    """A run that ends at any moment."""


def test_a_killed_run_resumes_without_repeating_segments(source, finished, placed, tmp_path, monkeypatch):
    """Interrupted while frames are searched, searched again and written; the result is the same."""
    out, counts = tmp_path / "out", {}

    def dying(module, name, calls):
        original = getattr(module, name)

        def call(*given, **options):
            counts[name] = counts.get(name, 0) + 1
            if counts[name] in calls:
                raise Killed
            return original(*given, **options)

        monkeypatch.setattr(module, name, call)

    dying(video.searching.detection, "find_upright", (25, 60))
    dying(video.searching, "_save_still", (3,))
    dying(release.videos, "_hide", (20, 90))
    dying(release.videos, "join_segments", (2,))
    n_killed = 0
    for _ in range(10):
        try:
            assert run(source, out, "--k", "2") == 0
            break
        except Killed:
            n_killed += 1
    assert n_killed == 6
    for name, path in files_of(out).items():
        if path.suffix == ".mp4":
            for one, other in zip(read(path), read(files_of(finished)[name]), strict=True):
                np.testing.assert_array_equal(one.image, other.image)
    n_frames = 44 + 44 + 30
    assert counts["_hide"] <= n_frames + 2 * 16 + 2
    assert not out.with_name("out-private").joinpath("ledger-search").exists()


def test_a_known_face_is_not_given_to_another_track(clips):
    """A face is searched where it is expected, but another one that was found before has come there."""
    clip = clips["crossing.mp4"]
    image, box = clip.frames[0], clip.marks[0][1]
    nobody = np.zeros((0, 4))
    near = video.searching._search_near(image, box[None], 0, nobody)
    assert tracks.shared_area(box, near.box[None])[0] > 0.5
    assert video.searching._search_near(image, box[None], 0, near.box[None]) is None
    other = clip.marks[0][0]
    np.testing.assert_array_equal(
        video.searching._search_near(image, box[None], 0, other[None]).box, near.box
    )
    # Two faces are expected side by side: what is found belongs to the one that it fits best.
    beside = np.stack([box + [20, 0, 20, 0], box])
    assert video.searching._search_near(image, beside[:1], 0, nobody) is not None
    assert video.searching._search_near(image, beside, 0, nobody) is None
    np.testing.assert_array_equal(video.searching._search_near(image, beside, 1, nobody).box, near.box)


@pytest.fixture(scope="module")
def alone(orl, tmp_path_factory):
    """A short clip of one person."""
    folder = tmp_path_factory.mktemp("alone")
    clip = compose([Actor(orl.images[0], line((100, 110), (130, 110), 16, 120))], 16)
    write(folder / "a.mp4", clip.frames)
    return folder, clip


def test_fewer_than_k_people_are_blurred_throughout(alone, tmp_path, capsys):
    folder, clip = alone
    assert run(folder, tmp_path / "out", "--k", "2") == 0
    after = [frame.image for frame in read(files_of(tmp_path / "out")["a.mp4"])]
    assert in_the_clear([frame.image for frame in read(folder / "a.mp4")], after, clip.marks) == []
    spans = journal_of(tmp_path / "out")["a.mp4"]["tracks"][0]["spans"]
    assert {span["outcome"] for span in spans} == {"blurred out"}
    assert "fewer than k = 2" in capsys.readouterr().out


def test_a_pool_fills_the_clusters_and_is_never_shown(alone, orl, tmp_path, capsys):
    folder, clip = alone
    (tmp_path / "pool").mkdir()
    for row in (100, 150, 160):
        Image.fromarray(scene([orl.images[row]], [(140, 130, 190, 0)], size=(260, 280))).save(
            tmp_path / "pool" / f"{row}.png"
        )
    out = tmp_path / "out"
    assert run(folder, out, "--k", "3", "--pool", str(tmp_path / "pool")) == 0
    printed = capsys.readouterr().out
    assert "3 people of --pool fill the clusters" in printed and "1 to 1 are in this run" in printed
    assert [path.suffix for path in files_of(out).values()] == [".mp4"]
    spans = journal_of(out)["a.mp4"]["tracks"][0]["spans"]
    assert spans[0]["outcome"] == REPLACED and spans[0]["frames"] == 16


def test_sound_is_kept_on_request(source, alone, tmp_path):
    folder, _ = alone
    (tmp_path / "in").mkdir()
    add_sound(folder / "a.mp4", tmp_path / "in" / "a.mp4", 0.64)
    assert run(tmp_path / "in", tmp_path / "out", "--k", "2", "--audio", "keep") == 0
    (path,) = files_of(tmp_path / "out").values()
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert abs(heard.shape[1] / 48000 - 0.64) < 0.06
    assert heard[0, 4000:20000].std() > 0.3


@pytest.mark.parametrize(
    "options", [("--mode", "shared"), ("--keep", "photos"), ("--people", "folders"), ("--method", "blur")]
)
def test_options_for_photos_alone_are_refused(alone, tmp_path, options, capsys):
    (tmp_path / "photos").mkdir()
    options = [str(tmp_path / "photos") if one == "photos" else one for one in options]
    assert run(alone[0], tmp_path / "out", *options) == 2
    assert "put the videos elsewhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out-private").exists()


def test_a_video_without_faces_is_suppressed_or_kept_on_request(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "meadow.mp4", compose([], 14).frames)
    assert run(tmp_path / "in", tmp_path / "out", "--k", "2") == 1
    record = journal_of(tmp_path / "out")["meadow.mp4"]
    assert (record["status"], record["reason"]) == ("suppressed", "no face was found")
    assert run(tmp_path / "in", tmp_path / "kept", "--k", "2", "--keep-faceless") == 0
    assert len(read(files_of(tmp_path / "kept")["meadow.mp4"])) == 14


def test_a_video_that_changes_during_the_run_is_not_released(alone, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "a.mp4"
    path.write_bytes((alone[0] / "a.mp4").read_bytes())
    make_plan = release.planning.make_plan

    def plan_then_change(*given):
        path.write_bytes(path.read_bytes() + b" ")
        return make_plan(*given)

    monkeypatch.setattr(release.planning, "make_plan", plan_then_change)
    assert run(folder, tmp_path / "out", "--k", "2") == 1
    assert "changed during the run" in journal_of(tmp_path / "out")["a.mp4"]["reason"]


def test_a_face_found_only_on_the_result_is_blurred_out(alone, tmp_path, monkeypatch):
    """A face that the first searches miss, on all frames, is found on the written video."""
    folder, clip = alone
    monkeypatch.setattr(video.searching.detection, "find_upright", lambda *_: ())
    find_faces, calls = video.searching.detection.find_faces, []

    def blind(image, thorough=True):
        calls.append(image.shape)
        known = image.shape == clip.frames[0].shape and len(calls) < 6
        return () if known else find_faces(image, thorough)

    monkeypatch.setattr(video.searching.detection, "find_faces", blind)
    assert run(folder, tmp_path / "out", "--k", "2", "--keep-faceless") == 0
    after = [frame.image for frame in read(files_of(tmp_path / "out")["a.mp4"])]
    assert in_the_clear([frame.image for frame in read(folder / "a.mp4")], after, clip.marks) == []
    (track,) = journal_of(tmp_path / "out")["a.mp4"]["tracks"]
    assert {span["reason"] for span in track["spans"]} == {"found only on the result"}


def test_a_failing_detector_fails_the_video_alone(source, alone, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((alone[0] / "a.mp4").read_bytes())

    def fail(*_):
        raise MemoryError("no memory")

    monkeypatch.setattr(video.searching.detection, "find_upright", fail)
    assert run(folder, tmp_path / "out", "--k", "2") == 1
    assert "MemoryError" in journal_of(tmp_path / "out")["a.mp4"]["reason"]


def test_report_shows_strips_of_moments_to_look_at(finished):
    page = (finished.with_name("out-private") / "ledger-report.html").read_text()
    assert "<h2>Videos</h2>" in page and page.count('alt="strip"') >= 1
    assert all(path.name in page for path in files_of(finished).values())
    assert not any(name in page for name in ("crossing", "leaving"))


@pytest.mark.full
def test_a_run_killed_at_random_moments_gives_the_same_frames(orl, tmp_path):
    """SIGKILL, five times, then to the end."""
    actors = [
        Actor(orl.images[10 * i], line((80 + 150 * i, 110), (110 + 150 * i, 115), 230, 110, 5))
        for i in range(2)
    ]
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.mp4", compose(actors, 230, (220, 330)).frames)
    root, random = Path(__file__).resolve().parents[1], np.random.default_rng()

    def start(name):
        command = [
            sys.executable,
            "-m",
            "anonymizer",
            tmp_path / "in",
            tmp_path / name,
            "--k",
            "2",
            "--quick",
        ]
        environment = {
            **os.environ,
            "ANONFACES_CACHE": str(tmp_path / f"cache-{name}"),
            "ANONFACES_QUIET": "1",
        }
        return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)

    assert start("whole").wait() == 0
    for _ in range(5):
        process = start("killed")
        try:
            process.wait(timeout=random.uniform(3, 40))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert start("killed").wait() == 0
    whole, killed = (read(files_of(tmp_path / name)["a.mp4"]) for name in ("whole", "killed"))
    for one, other in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
