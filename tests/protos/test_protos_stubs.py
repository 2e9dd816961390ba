"""The committed stubs are those of the .proto file, and the wire is JetStream's."""

from pathlib import Path

from protos import orchestrator_pb2 as pb
from protos.generate import generate

ROOT = Path(__file__).parents[2]


def test_the_stubs_are_not_stale(tmp_path):
    generate(tmp_path)
    made = sorted(path.name for path in (tmp_path / "protos").iterdir())
    assert made == ["orchestrator_pb2.py", "orchestrator_pb2.pyi", "orchestrator_pb2_grpc.py"]
    for name in made:
        assert (ROOT / "protos" / name).read_text() == (tmp_path / "protos" / name).read_text()


def test_a_request_has_jetstreams_bytes():
    """Written out by hand from JetStream's field numbers: max_tokens 4, text_content 5, text 1."""
    request = pb.DecodeRequest(
        max_tokens=3, text_content=pb.DecodeRequest.TextContent(text="hi"), has_bos=True
    )
    assert request.SerializeToString() == b"\x20\x03\x2a\x04\x0a\x02hi\x50\x01"
    ids = pb.DecodeRequest(token_content=pb.DecodeRequest.TokenContent(token_ids=[1, 300]))
    assert ids.SerializeToString() == b"\x32\x05\x0a\x03\x01\xac\x02"


def test_a_response_has_jetstreams_bytes():
    sample = pb.DecodeResponse.StreamContent.Sample(text="a", token_ids=[7])
    content = pb.DecodeResponse.StreamContent(samples=[sample])
    response = pb.DecodeResponse(stream_content=content)
    assert response.SerializeToString() == b"\x1a\x08\x0a\x06\x0a\x01a\x12\x01\x07"


def test_our_own_fields_start_at_20():
    theirs = {
        "DecodeRequest": {4, 5, 6, 7, 8, 9, 10},
        "DecodeResponse": {2, 3},
    }
    for name, numbers in theirs.items():
        found = {field.number for field in pb.DESCRIPTOR.message_types_by_name[name].fields}
        assert {number for number in found if number < 20} == numbers
