"""A CUDA toolkit that only answers: engines compile kernels as they start, which do nothing here.

DeepGEMM and others call nvcc for each shape. A dry run's machine need not have it, and where it
has it a compilation takes seconds, of which no byte of an accounting depends.
"""

from __future__ import annotations

import shlex
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_RELEASE = "13.0"
_ENTRY_POINT = 0x10  # STO_CUDA_ENTRY: such a symbol is a kernel
_EM_CUDA = 190
_SYMBOL_TABLE, _TEXT_TABLE = 2, 3  # types of sections: SHT_SYMTAB, SHT_STRTAB
_NVCC = """#!/bin/sh
# Answers as nvcc does: each output is the same kernel, which does nothing.
out= next=
for word in "$@"; do
  if [ -n "$next" ]; then out=$word; next=; continue; fi
  case $word in
    --version|-V) echo "Cuda compilation tools, release {release}, V{release}.0"; exit 0 ;;
    -o|--output-file) next=1 ;;
    --output-file=*) out=${{word#*=}} ;;
  esac
done
[ -z "$out" ] || exec cp {cubin} "$out"
"""


def make_toolkit(folder: Path) -> dict[str, str]:
    """Makes the toolkit, and returns the variables that have engines use it.

    Args:
        folder: is made; what is compiled is kept in it too, so that nobody else's cache gets it.
    """
    home, kept = folder / "cuda", folder / "kernels"
    (home / "bin").mkdir(parents=True)
    cubin, nvcc = home / "kernel.cubin", home / "bin" / "nvcc"
    cubin.write_bytes(_cubin("kernel"))
    nvcc.write_text(_NVCC.format(release=_RELEASE, cubin=shlex.quote(str(cubin))))
    nvcc.chmod(0o755)
    return {
        "CUDA_HOME": str(home),
        "DG_JIT_NVCC_COMPILER": str(nvcc),
        "DG_JIT_CACHE_DIR": str(kept / "deep_gemm"),
        # FlashInfer times its kernels, and keeps which is the fastest: of kernels that do nothing.
        "FLASHINFER_WORKSPACE_BASE": str(kept / "flashinfer"),
        "FLASHINFER_AUTOTUNE_CACHE_DIR": str(kept / "flashinfer" / "autotune"),
    }


def _cubin(kernel: str) -> bytes:
    """An ELF file as NVIDIA's, with one kernel and no code."""
    names = b"\0.strtab\0.symtab\0" + kernel.encode() + b"\0"
    function, is_global, first_section = 2, 1 << 4, 1  # STT_FUNC, STB_GLOBAL
    symbol = struct.Struct("<IBBHQQ")
    where = names.index(kernel.encode())
    symbols = bytes(symbol.size) + symbol.pack(
        where, is_global | function, _ENTRY_POINT, first_section, 0, 0
    )
    header, section = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ")
    symbols_at = -(-(header.size + len(names)) // 8) * 8
    strtab, symtab = names.index(b".strtab"), names.index(b".symtab")
    sections = (
        bytes(section.size)
        + section.pack(strtab, _TEXT_TABLE, 0, 0, header.size, len(names), 0, 0, 1, 0)
        + section.pack(symtab, _SYMBOL_TABLE, 0, 0, symbols_at, len(symbols), 1, 1, 8, symbol.size)
    )
    identity = b"\x7fELF\x02\x01\x01\x33\x07" + bytes(7)  # 64 bits, NVIDIA's ABI
    executable, sections_at = 2, symbols_at + len(symbols)
    begin = header.pack(
        identity, executable, _EM_CUDA, 1, 0, 0, sections_at, 0, header.size, 0, 0,
        section.size, len(sections) // section.size, first_section,
    )  # fmt: skip
    return (begin + names).ljust(symbols_at, b"\0") + symbols + sections
