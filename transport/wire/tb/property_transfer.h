// A property block does not fit into one packet: cutting fragments out of one, and putting one
// together from the answers of a peer, whatever their order, number or content.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "wire/tb/xdomain.h"

namespace tbt::wire::tb {

// The answer of host `self` to `request`, or nothing if its offset is not inside the block. The
// block has 1..kPropertyBlockMax words.
std::optional<PropertiesResponse> property_fragment(std::span<const uint32_t> block,
                                                    uint32_t generation, const Uuid& self,
                                                    const PropertiesRequest& request);

class PropertyAssembly {
 public:
  enum class Step : uint8_t {
    kMore,      // taken; ask for next_offset()
    kComplete,  // taken; block() is whole
    kRestart,   // the peer's block has changed in between; ask from offset 0 again
    kIgnored,   // not what was asked for: late, or twice
  };

  Step add(const PropertiesResponse& response);

  [[nodiscard]] uint16_t next_offset() const noexcept {
    return static_cast<uint16_t>(words_.size());
  }
  [[nodiscard]] uint32_t generation() const noexcept { return generation_; }
  [[nodiscard]] std::span<const uint32_t> block() const noexcept { return words_; }
  void clear() noexcept;

 private:
  std::vector<uint32_t> words_;
  uint16_t total_ = 0;
  uint32_t generation_ = 0;
};

}  // namespace tbt::wire::tb
