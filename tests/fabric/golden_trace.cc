#include "golden_trace.h"

#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

#include "base/bytes.h"

namespace tbt::fabric {

std::vector<GoldenLine> load_trace() {
  std::ifstream file(TBT_GOLDEN "/linux_7_3.trace");
  std::vector<GoldenLine> lines;
  for (std::string text; std::getline(file, text);) {
    if (text.empty() || text[0] == '#') continue;
    std::istringstream words(text);
    double seconds = 0;
    std::string direction, word;
    unsigned pdf = 0;
    words >> seconds >> direction >> word >> pdf;
    GoldenLine line{Instant{1'000'000'000 + std::llround(seconds * 1e9)},
                    direction == "tx",
                    static_cast<uint8_t>(pdf),
                    {}};
    while (words >> word) {
      line.bytes.resize(line.bytes.size() + 4);
      base::store_be(line.bytes.data() + line.bytes.size() - 4,
                     static_cast<uint32_t>(std::stoul(word, nullptr, 16)));
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace tbt::fabric
