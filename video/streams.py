"""Read and write videos as streams of upright RGB frames, with nothing but pixels and, on request, sound.

PyAV, which holds FFmpeg, decodes and encodes. Frames are read one at a time, so that memory does not grow with the
length. What is written has no metadata, subtitles, data streams, chapters or thumbnails. A video is written in
segments, each a file of its own, which `join_segments` puts together without encoding them again.
"""

from __future__ import annotations

import filecmp
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace

import detection

#: Times are counted in these parts of a second.
TICK = Fraction(1, 90_000)
#: Frame rate where a file names none, and the limits of what it may name.
_RATE, _RATES = Fraction(25), (1, 240)
#: Frames of more pixels are not read; sides are at least this long.
_MOST_PIXELS, _SMALLEST_SIDE = 40_000_000, 16
#: A video that ends this much earlier than its file says, in seconds, is cut short.
_CUT_SHORT = 0.5
#: Words in FFmpeg's log that say so.
_ENDS_EARLY = ("ended prematurely", "partial file", "truncat", "unexpected end")

_GIF_END = b";"

_SOUND_RATE = 48_000
#: One thread gives the same bytes on every machine; without B-frames packets are in the order of frames.
_ENCODER = {"preset": "veryfast", "x264-params": "bframes=0:scenecut=40:sliced-threads=0", "threads": "1"}


class VideoError(ValueError):
    """A video cannot be read; the message says why."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes
    ----------
    number : int
        From 0.
    time : int
        Since the start of the file, in parts of `TICK`; higher than that of the frame before.
    image : ndarray of uint8, shape (h, w, 3)
        Upright, with square pixels.
    """

    number: int
    time: int
    image: np.ndarray


def read_frames(path: Path, largest_side: int) -> Iterator[Frame]:
    """Read the frames of a video one after another.

    Rotation and the proportions of pixels are applied. All frames have the size of the first.

    Parameters
    ----------
    path : Path
    largest_side : int
        Frames with a longer side, in pixels, are reduced.

    Raises
    ------
    VideoError
        If the file is no video, has no frames, is damaged or cut short, or its frames are too large.
    """
    number, last, size = -1, -1, None
    with _opened(path) as container:
        stream = _video_stream(path, container)
        stream.thread_type = "AUTO"
        start, rate = container.start_time or 0, _rate(stream)
        with av.logging.Capture(local=False) as log:
            for number, frame in enumerate(_decoded(path, container, stream)):
                pts = frame.pts if frame.pts is not None else frame.dts
                time = last + round(1 / rate / TICK)
                if pts is not None:
                    time = round(
                        (pts * (frame.time_base or stream.time_base) - Fraction(start, av.time_base)) / TICK
                    )
                last = max(time, last + 1)
                image = _to_rgb(path, frame, stream, largest_side)
                size = size or image.shape[:2]
                if image.shape[:2] != size:
                    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
                yield Frame(number, last, image)
            _check_end(path, container, stream, number + 1, last * TICK, log)


def count_frames(path: Path) -> int | None:
    """Approximate number of frames, as the file says; None if it does not."""
    with _opened(path) as container:
        stream = _video_stream(path, container)
        seconds = (container.duration or 0) / av.time_base
        return stream.frames or round(seconds * _rate(stream)) or None


def _opened(path: Path):
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: file is empty; remove it or copy it again")
    try:
        return av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: cannot be read as a video ({_in_words(error)}); it may be cut short: copy it again, or remove it"
        ) from error


def _in_words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _video_stream(path: Path, container) -> av.VideoStream:
    """The main video stream; thumbnails are none."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        has_sound = bool(container.streams.audio)
        raise VideoError(f"{path}: holds no video{', only sound' if has_sound else ''}; remove it")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: the format of its video is unknown; save it as MP4 (H.264)")
    return stream


def _decoded(path: Path, container, stream) -> Iterator[av.VideoFrame]:
    try:
        yield from container.decode(stream)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: is damaged or cut short ({_in_words(error)}); copy it again, or remove it"
        ) from error


def _rate(stream: av.VideoStream) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or _RATE
    return rate if _RATES[0] <= rate <= _RATES[1] else _RATE


def _to_rgb(path: Path, frame: av.VideoFrame, stream, largest_side: int) -> np.ndarray:
    """The upright picture of a frame, with square pixels: uint8 (h, w, 3)."""
    if frame.width * frame.height > _MOST_PIXELS or min(frame.width, frame.height) < _SMALLEST_SIDE:
        raise VideoError(
            f"{path}: its frames have {frame.width} x {frame.height} pixels; from {_SMALLEST_SIDE} pixels a side to "
            f"{_MOST_PIXELS // 10**6} megapixels are read"
        )
    image = frame.to_ndarray(format="rgb24", src_colorspace=_colourspace(frame))
    shape = stream.sample_aspect_ratio or 1
    if shape > 0 and shape != 1:
        wide, high = (max(shape, 1), 1) if shape >= 1 else (1, 1 / shape)
        new = (round(frame.width * wide), round(frame.height * high))
        if new[0] * new[1] <= _MOST_PIXELS:
            image = cv2.resize(image, new, interpolation=cv2.INTER_CUBIC)
    image = np.rot90(image, round(frame.rotation / 90) % 4)
    return detection.resize(image, min(1.0, largest_side / max(image.shape[:2])))


def _colourspace(frame: av.VideoFrame) -> Colorspace:
    """The matrix of a frame's colours; files that name none use the usual one of their size."""
    if frame.colorspace in (Colorspace.ITU709, Colorspace.ITU601, Colorspace.SMPTE240M, Colorspace.FCC):
        return Colorspace(frame.colorspace)
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


def _check_end(path: Path, container, stream, n_frames: int, last: Fraction, log) -> None:
    """Raise VideoError if a file ended before its last frame, or holds none."""
    if n_frames == 0:
        raise VideoError(f"{path}: holds no frames; copy it again, or remove it")
    with path.open("rb") as file:
        file.seek(-1, 2)
        told = container.format.name == "gif" and file.read(1) != _GIF_END
    told |= any(words in message.lower() for _, _, message in log for words in _ENDS_EARLY)
    end = 0.0
    if stream.duration:
        end = float(stream.duration * stream.time_base)
    elif container.duration and not container.streams.audio:
        end = container.duration / av.time_base
    if (
        told
        or stream.frames > n_frames + 1
        or end - float(last + 1 / _rate(stream)) > _CUT_SHORT + 0.02 * end
    ):
        raise VideoError(f"{path}: file is cut short; copy it again, or remove it")


# ----------------------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------------------


class SegmentWriter:
    """Writes some frames of a video as a file of H.264, without times.

    Parameters
    ----------
    path : Path
    rate : Fraction
        Approximate frame rate.
    crf : int
        Constant rate factor: 0 is lossless, 18 nearly invisible, 51 worst.
    """

    def __init__(self, path: Path, rate: Fraction, crf: int):
        self._container = av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"})
        self._stream = self._container.add_stream("libx264", rate=rate, options={**_ENCODER, "crf": str(crf)})
        self._stream.pix_fmt = "yuv420p"
        self._count = 0

    def add(self, image: np.ndarray) -> None:
        """Add a frame, uint8 (h, w, 3); odd sides get another row or column of the same colour."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._count == 0:
            self._stream.height, self._stream.width = image.shape[:2]
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = self._count, 1 / self._stream.codec_context.framerate
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def join_segments(
    segments: Sequence[Path], times: Sequence[int], target: Path, sound: Path | None = None
) -> None:
    """Put segments together to one MP4 file without metadata.

    Parameters
    ----------
    segments : sequence of Path
        From `SegmentWriter`.
    times : sequence of int
        Of all n frames, in parts of `TICK`.
    target : Path
    sound : Path, optional
        A video whose first sound track is added, encoded again as AAC.
    """
    with _new_file(target) as container:
        with av.open(str(segments[0])) as first:
            stream = container.add_stream_from_template(first.streams.video[0])
        stream.time_base = TICK
        packets = _sound_packets(container, sound) if sound is not None else iter(())
        waiting = next(packets, None)
        for number, packet in enumerate(_segment_packets(segments)):
            packet.stream, packet.time_base = stream, TICK
            packet.pts = packet.dts = times[number]
            following = (
                times[number + 1] if number + 1 < len(times) else 2 * times[number] - times[number - 1]
            )
            packet.duration = following - times[number] if len(times) > 1 else round(1 / _RATE / TICK)
            while waiting is not None and waiting.dts * waiting.time_base <= times[number] * TICK:
                container.mux(waiting)
                waiting = next(packets, None)
            container.mux(packet)
        while waiting is not None:
            container.mux(waiting)
            waiting = next(packets, None)


def _new_file(target: Path):
    options = {
        "fflags": "+bitexact", "movflags": "+faststart", "video_track_timescale": str(TICK.denominator),
        "write_btrt": "0",
    }  # fmt: skip
    return av.open(str(target), "w", format="mp4", options=options)


def foreign_content(path: Path) -> str:
    """Say what a released video holds besides frames and sound; empty if nothing.

    The same packets are put into a new file, which must have the same bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.mp4"
        try:
            with _opened(path) as source, _new_file(again) as target:
                kinds = [stream.type for stream in source.streams]
                if kinds not in (["video"], ["video", "audio"]):
                    return f"streams other than a video and its sound: {', '.join(kinds)}"
                streams = [target.add_stream_from_template(stream) for stream in source.streams]
                streams[0].time_base = TICK
                for packet in source.demux():
                    if packet.size:
                        packet.stream = streams[packet.stream.index]
                        target.mux(packet)
        except (VideoError, av.FFmpegError, OSError, ValueError) as error:
            return f"not a video ({_in_words(error)})"
        if not filecmp.cmp(path, again, shallow=False):
            return "not as this version of AnonFACES writes a video; other bytes could carry a message"
    return ""


def _segment_packets(segments: Sequence[Path]) -> Iterator[av.Packet]:
    for path in segments:
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                if packet.size:
                    yield packet


def _sound_packets(target, path: Path) -> Iterator[av.Packet]:
    """The first sound track of a file, encoded as AAC for a container."""
    with _opened(path) as probe:
        if not probe.streams.audio:
            return iter(())
    stream = target.add_stream("aac", rate=_SOUND_RATE, layout="stereo")
    return _encoded_sound(stream, path)


def _encoded_sound(stream, path: Path) -> Iterator[av.Packet]:
    resampler = av.AudioResampler("fltp", "stereo", _SOUND_RATE, stream.codec_context.frame_size or 1024)
    with _opened(path) as container:
        start = Fraction(container.start_time or 0, av.time_base)
        try:
            for frame in itertools.chain(container.decode(audio=0), [None]):
                for piece in resampler.resample(frame):
                    piece.pts = round((piece.pts * piece.time_base - start) * _SOUND_RATE)
                    piece.time_base = Fraction(1, _SOUND_RATE)
                    if piece.pts >= 0:
                        yield from stream.encode(piece)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{path}: its sound cannot be read ({_in_words(error)}); use --audio drop"
            ) from error
    yield from stream.encode(None)
