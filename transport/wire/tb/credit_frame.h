// Credit frames: what two ends of a path say to each other beside the frames that they carry, where
// the hardware's end-to-end credits are not used; and the numbered frames by which these are tried.
// docs/wire.md, section 7. State is elsewhere: rail/nhi/credits.h, rail/nhi/flow_test.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tbt::wire::tb {

inline constexpr uint8_t kPdfCredit = 5;  // SOF and EOF
inline constexpr uint32_t kCreditFrameBytes = 20;
inline constexpr uint8_t kCreditVersion = 1;
inline constexpr uint32_t kCreditRingEntriesMin = 8;  // a head, its payload and a reserve

enum class CreditKind : uint8_t {
  kCredit = 1,
  kTest = 2,  // says nothing but its number
};

// Counts are of all frames of this session, modulo 2^32.
struct CreditFrame {
  CreditKind kind = CreditKind::kCredit;
  bool answer = false;   // a credit frame is wanted at once
  uint32_t session = 0;  // path_session(); not 0
  uint32_t sent = 0;     // by the sender, this frame among them. Of a test: its number, from 0
  uint32_t limit = 0;    // so many the receiver may have sent. Of a test: how many there are
  friend bool operator==(const CreditFrame&, const CreditFrame&) = default;
};

// Writes kCreditFrameBytes.
void encode_credit_frame(const CreditFrame& frame, std::byte* out) noexcept;
// False: not sound, or of another version; `out` is not written.
bool decode_credit_frame(std::span<const std::byte> bytes, CreditFrame& out) noexcept;

}  // namespace tbt::wire::tb
