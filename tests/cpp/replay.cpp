// Runs a fuzz target over files instead of made-up inputs: a plain main for any compiler.
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    // Named before it runs: the last name is the one that a crash is about.
    std::printf("%s\n", argv[i]);
    std::fflush(stdout);
    auto* const file = std::fopen(argv[i], "rb");
    if (file == nullptr) return 1;
    std::vector<std::uint8_t> text;
    for (int byte = std::fgetc(file); byte != EOF; byte = std::fgetc(file)) {
      text.push_back(static_cast<std::uint8_t>(byte));
    }
    std::fclose(file);
    LLVMFuzzerTestOneInput(text.data(), text.size());
  }
}
