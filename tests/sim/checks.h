// Checks: what a failure of a seed is, and which of the checkers saw it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace tbt::sim {

enum class Checker : uint8_t {
  kNone,
  kOrder,     // completions once each, in the order of posting, of what was posted
  kStatus,    // a status, or an event, that the faults allow
  kFields,    // opcode, lengths, immediate, QPN and flags of a completion
  kPayload,   // what a message, a READ or an atomic brought
  kMemory,    // areas that the peer writes against their shadows
  kGuard,     // bytes around the buffers
  kDelivery,  // what was acknowledged has arrived, what need not be lost is not
  kSlots,     // places of the send and receive queues
  kCredits,   // no more credit at a sender than its receiver has receives
  kFlush,     // after an error everything outstanding comes back
  kLiveness,  // all work ends once the cables have healed, or in its time
  kSession,   // nothing of an earlier incarnation of a host is taken
  kCount
};

constexpr const char* checker_name(Checker checker) noexcept {
  constexpr const char* kNames[] = {"none",   "order",    "status",   "fields", "payload",
                                    "memory", "guards",   "delivery", "slots",  "credits",
                                    "flush",  "liveness", "session"};
  return kNames[static_cast<size_t>(checker)];
}

// The first failure of a run; later ones follow from it.
struct Failure {
  Checker by = Checker::kNone;
  std::string text;

  explicit operator bool() const noexcept { return by != Checker::kNone; }
  void note(Checker checker, std::string what) {
    if (by != Checker::kNone) return;
    by = checker;
    text = std::move(what);
  }
};

}  // namespace tbt::sim
