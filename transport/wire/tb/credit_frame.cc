#include "wire/tb/credit_frame.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "wire/crc32c.h"

namespace tbt::wire::tb {
namespace {

constexpr size_t kCovered = kCreditFrameBytes - 4;
constexpr uint8_t kFlagAnswer = 1;

}  // namespace

void encode_credit_frame(const CreditFrame& frame, std::byte* out) noexcept {
  TBT_ASSERT(frame.session != 0);
  out[0] = std::byte{kCreditVersion};
  out[1] = static_cast<std::byte>(frame.kind);
  out[2] = frame.answer ? std::byte{kFlagAnswer} : std::byte{0};
  out[3] = std::byte{0};
  base::store_be(out + 4, frame.session);
  base::store_be(out + 8, frame.sent);
  base::store_be(out + 12, frame.limit);
  base::store_be(out + kCovered, crc32c({out, kCovered}));
}

bool decode_credit_frame(std::span<const std::byte> bytes, CreditFrame& out) noexcept {
  if (bytes.size() != kCreditFrameBytes) return false;
  const std::byte* p = bytes.data();
  if (base::load_be<uint32_t>(p + kCovered) != crc32c(bytes.first(kCovered))) return false;
  if (p[0] != std::byte{kCreditVersion} || p[3] != std::byte{0}) return false;
  const auto kind = static_cast<CreditKind>(p[1]);
  if (kind != CreditKind::kCredit && kind != CreditKind::kTest) return false;
  if ((p[2] & ~std::byte{kFlagAnswer}) != std::byte{0}) return false;
  const auto session = base::load_be<uint32_t>(p + 4);
  if (session == 0) return false;
  out = {kind, p[2] != std::byte{0}, session, base::load_be<uint32_t>(p + 8),
         base::load_be<uint32_t>(p + 12)};
  return true;
}

}  // namespace tbt::wire::tb
