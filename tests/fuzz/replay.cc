// Gives every file of the folders named on the command line to a fuzz target once, so that a
// compiler without libFuzzer runs the corpus too. Fails if there is no file at all.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "fuzz_target.h"

int main(int argc, char** argv) {
  int files = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream in(entry.path(), std::ios::binary);
      // Exactly as long as the file, so that the address sanitizer sees a read of one byte too
      // many.
      const std::vector<char> text{std::istreambuf_iterator<char>(in),
                                   std::istreambuf_iterator<char>()};
      const std::vector<uint8_t> bytes(text.begin(), text.end());
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
      ++files;
    }
  }
  std::printf("replayed %d files\n", files);
  return files == 0 ? 1 : 0;
}
