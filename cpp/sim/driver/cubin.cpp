// Reads the names of kernels from an image: the entry points among an ELF's symbols, or the
// ".entry" directives of a PTX text.
#include "cubin.hpp"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace memacct::sim {
namespace {

constexpr unsigned char kEntryPoint = 0x10;  // STO_CUDA_ENTRY in st_other: not in <elf.h>

/// An array of the image, or null if it is not whole within it.
template <class Item>
Item const* within(char const* image, size_t size, size_t offset, size_t count) {
  if (offset > size || count > (size - offset) / sizeof(Item)) return nullptr;
  return reinterpret_cast<Item const*>(image + offset);
}

std::vector<std::string> elf_kernels(char const* image, size_t size) {
  std::vector<std::string> found;
  auto const* const header = within<Elf64_Ehdr>(image, size, 0, 1);
  if (header == nullptr) return found;
  auto const* const sections = within<Elf64_Shdr>(image, size, header->e_shoff, header->e_shnum);
  if (sections == nullptr) return found;
  for (int i = 0; i < header->e_shnum; ++i) {
    Elf64_Shdr const& table = sections[i];
    if (table.sh_type != SHT_SYMTAB || table.sh_link >= header->e_shnum) continue;
    Elf64_Shdr const& text = sections[table.sh_link];
    size_t const count = table.sh_size / sizeof(Elf64_Sym);
    auto const* const symbols = within<Elf64_Sym>(image, size, table.sh_offset, count);
    auto const* const names = within<char>(image, size, text.sh_offset, text.sh_size);
    if (symbols == nullptr || names == nullptr) continue;
    for (size_t s = 0; s < count; ++s) {
      bool const kernel = ELF64_ST_TYPE(symbols[s].st_info) == STT_FUNC &&
                          (symbols[s].st_other & kEntryPoint) != 0 &&
                          symbols[s].st_shndx != SHN_UNDEF && symbols[s].st_name < text.sh_size;
      if (!kernel) continue;
      char const* const name = names + symbols[s].st_name;
      found.emplace_back(name, ::strnlen(name, text.sh_size - symbols[s].st_name));
    }
  }
  return found;
}

std::vector<std::string> ptx_kernels(std::string_view text) {
  constexpr std::string_view kDirective = ".entry";
  constexpr std::string_view kBlank = " \t\r\n";
  std::vector<std::string> found;
  for (size_t at = text.find(kDirective); at != text.npos; at = text.find(kDirective, at)) {
    at += kDirective.size();
    size_t const begin = text.find_first_not_of(kBlank, at);
    if (begin == text.npos || begin == at) continue;
    size_t const end = text.find_first_of(" \t\r\n({", begin);
    found.emplace_back(text.substr(begin, end - begin));
  }
  return found;
}

}  // namespace

std::vector<std::string> kernel_names(char const* image, size_t size) {
  if (image == nullptr || size < SELFMAG) return {};
  if (std::memcmp(image, ELFMAG, SELFMAG) == 0) return elf_kernels(image, size);
  // A PTX text begins with a comment or a directive.
  if (*image != '/' && *image != '.' && *image != '\n') return {};
  return ptx_kernels({image, ::strnlen(image, size)});
}

}  // namespace memacct::sim
