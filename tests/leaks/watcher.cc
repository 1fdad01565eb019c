// leak_watcher: attached to a host like any process, it looks at the shared memory of all hosts of
// the emulated fabric: whether each buffer is where it belongs.
//
//   look  -> look BUFFERS FREE POSTED KEPT HELD INBOX LOCKED SLOTS    of all rails of all hosts
// It waits up to two seconds until nothing is held, in an inbox or locked any more, for the daemons
// and progress threads are at work too; then it says what it sees. SLOTS: processes, without
// itself.
#include <cstdio>
#include <cstring>
#include <memory>

#include "fabric/attach.h"
#include "rail/buffer_pool.h"
#include "sys/monotonic_clock.h"

namespace {

using namespace tbt;

struct Sight {
  uint32_t buffers = 0, free = 0, posted = 0, kept = 0, held = 0, inbox = 0, locked = 0, slots = 0;
  bool torn = false;  // the ring and the marks disagreed: somebody was at work

  [[nodiscard]] bool quiet() const {
    return !torn && held == 0 && inbox == 0 && locked == 0 && free + posted + kept == buffers;
  }
};

void look_at_rail(rail::HostMemory& memory, uint32_t index, Sight& sight) {
  rail::RailState& state = rail::RailMemory::rail(memory, index);
  rail::BufferPool pool(reinterpret_cast<std::byte*>(&state), rail::RailMemory::geometry(memory),
                        state.rx);
  const uint64_t window = state.rx.window.load();
  uint32_t posted = 0;
  for (uint32_t b = 0; b < pool.size(); ++b) {
    const rail::BufferMark mark = pool.mark(b);
    if (mark == rail::kMarkFree) {
      ++sight.free;
    } else if (mark == rail::kMarkPosted) {
      ++posted;
    } else if (mark == rail::kMarkKept) {
      ++sight.kept;
    } else {
      ++(mark >= rail::mark_inbox(0) ? sight.inbox : sight.held);
    }
  }
  sight.buffers += pool.size();
  sight.posted += posted;
  sight.torn |= posted != static_cast<uint32_t>(window >> 32) - static_cast<uint32_t>(window);
  sight.locked += state.tx.lock.is_locked() + state.rx.lock.is_locked();
}

Sight look(fabric::Attachment& attachment) {
  Sight sight;
  for (auto& memory : attachment.memories) {
    for (uint32_t r = 0; r <= memory->cables(); ++r) look_at_rail(*memory, r, sight);
    for (rail::SlotId s = 1; s < rail::kSlotsMax; ++s)
      sight.slots += memory->slot(s).state.load() != rail::SlotState::kFree;
  }
  --sight.slots;
  return sight;
}

}  // namespace

int main() {
  auto attached = fabric::attach(fabric::daemon_socket_path());
  if (!attached) {
    std::printf("error %s\n", attached.error().text().data());
    return 1;
  }
  const std::unique_ptr<fabric::Attachment> attachment = std::move(attached).value();
  std::printf("ready\n");
  std::fflush(stdout);
  char line[64];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    const Instant end = sys::monotonic_now() + Duration::from_ms(2000);
    Sight s = look(*attachment);
    while (!s.quiet() && sys::monotonic_now() < end) {
      // Frames for this process, should there ever be any, are thrown away by whoever takes them.
      for (auto& rail : attachment->rails) rail->advance(sys::monotonic_now().ns);
      s = look(*attachment);
    }
    std::printf("look %u %u %u %u %u %u %u %u\n", s.buffers, s.free, s.posted, s.kept, s.held,
                s.inbox, s.locked + (s.torn ? 1000 : 0), s.slots);
    std::fflush(stdout);
  }
  return 0;
}
