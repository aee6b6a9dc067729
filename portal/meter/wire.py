"""The messages of Envoy's external processing API (envoy.service.ext_proc.v3) that the meter reads and writes.

Only the fields that it uses, with Envoy's own numbers: what else comes is passed over. Made here from a table, because
the published Python classes lie in a package `cel`, which the evaluator of the sandbox's rules is called too.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Values of ProcessingMode (headers and trailers; bodies), and what becomes of a header that is there already.
SKIP = 2
STREAMED = 1
OVERWRITE = 2

PACKAGE = "slipway.ext_proc"
Field = descriptor_pb2.FieldDescriptorProto
KINDS = {"bool": Field.TYPE_BOOL, "bytes": Field.TYPE_BYTES, "int32": Field.TYPE_INT32, "string": Field.TYPE_STRING}
# Message: field: number and type; a type of our own is a message, `*` marks a list. Enums travel as int32.
MESSAGES = {
    "HeaderValue": {"key": (1, "string"), "value": (2, "string"), "raw_value": (3, "bytes")},
    "HeaderMap": {"headers": (1, "*HeaderValue")},
    "HttpHeaders": {"headers": (1, "HeaderMap"), "end_of_stream": (3, "bool")},
    "HttpBody": {"body": (1, "bytes"), "end_of_stream": (2, "bool")},
    "HttpTrailers": {"trailers": (1, "HeaderMap")},
    "ProcessingRequest": {
        "request_headers": (2, "HttpHeaders"),
        "response_headers": (3, "HttpHeaders"),
        "request_body": (4, "HttpBody"),
        "response_body": (5, "HttpBody"),
        "request_trailers": (6, "HttpTrailers"),
        "response_trailers": (7, "HttpTrailers"),
    },
    "HeaderValueOption": {"header": (1, "HeaderValue"), "append_action": (3, "int32")},
    "HeaderMutation": {"set_headers": (1, "*HeaderValueOption"), "remove_headers": (2, "*string")},
    "BodyMutation": {"body": (1, "bytes"), "clear_body": (2, "bool")},
    "CommonResponse": {"header_mutation": (2, "HeaderMutation"), "body_mutation": (3, "BodyMutation")},
    "HeadersResponse": {"response": (1, "CommonResponse")},
    "BodyResponse": {"response": (1, "CommonResponse")},
    "TrailersResponse": {"header_mutation": (1, "HeaderMutation")},
    "ProcessingMode": {
        "request_header_mode": (1, "int32"),
        "response_header_mode": (2, "int32"),
        "request_body_mode": (3, "int32"),
        "response_body_mode": (4, "int32"),
    },
    "ProcessingResponse": {
        "request_headers": (1, "HeadersResponse"),
        "response_headers": (2, "HeadersResponse"),
        "request_body": (3, "BodyResponse"),
        "response_body": (4, "BodyResponse"),
        "request_trailers": (5, "TrailersResponse"),
        "response_trailers": (6, "TrailersResponse"),
        "mode_override": (9, "ProcessingMode"),
    },
}
# Of these only one is there at a time.
ONE_OF = {"ProcessingRequest": "request", "BodyMutation": "mutation"}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="slipway/ext_proc.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name in ONE_OF:
            message.oneof_decl.add(name=ONE_OF[name])
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number, label=Field.LABEL_OPTIONAL)
            if kind.startswith("*"):
                field.label = Field.LABEL_REPEATED
            kind = kind.removeprefix("*")
            field.type = KINDS.get(kind, Field.TYPE_MESSAGE)
            if kind not in KINDS:
                field.type_name = f".{PACKAGE}.{kind}"
            if name in ONE_OF:
                field.oneof_index = 0
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


BodyMutation = _class("BodyMutation")
BodyResponse = _class("BodyResponse")
CommonResponse = _class("CommonResponse")
HeaderMutation = _class("HeaderMutation")
HeadersResponse = _class("HeadersResponse")
HeaderValue = _class("HeaderValue")
HeaderValueOption = _class("HeaderValueOption")
ProcessingMode = _class("ProcessingMode")
ProcessingRequest = _class("ProcessingRequest")
ProcessingResponse = _class("ProcessingResponse")
TrailersResponse = _class("TrailersResponse")
