"""Tensors on disk: containers, one interface over them, a writer, hashes and certificates."""

from lessonkit.files.atomic import atomic_file, atomic_folder
from lessonkit.files.certificate import CERTIFICATE_NAME, Certificate, compare, verify_tensors
from lessonkit.files.checkpoint import Checkpoint, TensorSource, open_checkpoint, read_json
from lessonkit.files.dtypes import to_float32
from lessonkit.files.gguf import GgufFile, open_gguf, read_gguf_header
from lessonkit.files.integrity import file_digest, verify
from lessonkit.files.safetensors import TensorInfo, read_header
from lessonkit.files.torch_file import read_torch_header, write_torch_file
from lessonkit.files.writer import write_checkpoint

__all__ = [
    "CERTIFICATE_NAME",
    "Certificate",
    "Checkpoint",
    "GgufFile",
    "TensorInfo",
    "TensorSource",
    "atomic_file",
    "atomic_folder",
    "compare",
    "file_digest",
    "open_checkpoint",
    "open_gguf",
    "read_gguf_header",
    "read_header",
    "read_json",
    "read_torch_header",
    "to_float32",
    "verify",
    "verify_tensors",
    "write_checkpoint",
    "write_torch_file",
]
