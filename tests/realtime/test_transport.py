"""Frames against an independent implementation of RFC 6455."""

from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from realtime.transport import close_frame, encode_frame, text_frame


def decode(frames: bytes) -> list[tuple[Opcode, bytes]]:
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(frames)
    return [(frame.opcode, cast("bytes", frame.payload)) for frame in client.received_frames()]


@given(st.binary(max_size=300))
@example(bytes(125))
@example(bytes(126))
@example(bytes(65_535))
@example(bytes(65_536))
@example(bytes(1 << 20))
def test_a_frame_is_read_as_it_was_written(payload: bytes) -> None:
    assert b"".join(bytes(part) for _, part in decode(encode_frame(Opcode.BINARY, payload))) == payload


def test_frames_can_be_joined() -> None:
    assert decode(text_frame(b"one") + encode_frame(Opcode.PONG, b"two") + text_frame(b"drei")) == [
        (Opcode.TEXT, "one"),
        (Opcode.PONG, b"two"),
        (Opcode.TEXT, "drei"),
    ]


@given(st.text(st.characters(codec="utf-8"), max_size=30))
@example("x" * 500)
@example("\N{GRINNING FACE}" * 31)
def test_a_goodbye_fits_into_a_control_frame(reason: str) -> None:
    [(opcode, payload)] = decode(close_frame(4001, reason))
    assert opcode is Opcode.CLOSE
    assert payload[0] == 4001
    assert reason.startswith(str(payload[1]))
