#include "wire/tb/property_transfer.h"

#include <algorithm>

#include "base/assert.h"

namespace tbt::wire::tb {

std::optional<PropertiesResponse> property_fragment(std::span<const uint32_t> block,
                                                    uint32_t generation, const Uuid& self,
                                                    const PropertiesRequest& request) {
  TBT_ASSERT(!block.empty() && block.size() <= kPropertyBlockMax);
  if (request.offset >= block.size()) return std::nullopt;
  const std::span<const uint32_t> rest = block.subspan(request.offset);
  PropertiesResponse response{.source = self,
                              .destination = request.source,
                              .offset = request.offset,
                              .total = static_cast<uint16_t>(block.size()),
                              .generation = generation,
                              .data = {}};
  response.data.push(rest.first(std::min(rest.size(), kPropertyFragmentMax)));
  return response;
}

PropertyAssembly::Step PropertyAssembly::add(const PropertiesResponse& response) {
  if (response.offset != words_.size()) return Step::kIgnored;
  if (words_.empty()) {
    total_ = response.total;
    generation_ = response.generation;
  } else if (response.total != total_ || response.generation != generation_) {
    clear();
    return Step::kRestart;
  }
  const std::span<const uint32_t> data = response.data.span();
  words_.insert(words_.end(), data.begin(), data.end());
  return words_.size() >= total_ ? Step::kComplete : Step::kMore;
}

void PropertyAssembly::clear() noexcept {
  words_.clear();
  total_ = 0;
  generation_ = 0;
}

}  // namespace tbt::wire::tb
