// The sequence lock over DirectoryData. The data is copied in 64-bit words with relaxed atomic
// accesses, so that a reader racing with the daemon reads old or new words (and then tries again),
// never undefined ones.
#include "fabric/directory.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace tbt::fabric {
namespace {

constexpr size_t kWords = sizeof(DirectoryData) / sizeof(uint64_t);
static_assert(sizeof(DirectoryData) % sizeof(uint64_t) == 0);
static_assert(std::atomic_ref<uint64_t>::is_always_lock_free);

uint64_t* words_of(Directory& directory) noexcept {
  return reinterpret_cast<uint64_t*>(&directory.data);
}

void load_words(Directory& directory, DirectoryData& out) noexcept {
  auto* to = reinterpret_cast<std::byte*>(&out);
  uint64_t* from = words_of(directory);
  for (size_t i = 0; i < kWords; i++) {
    const uint64_t word = std::atomic_ref<uint64_t>(from[i]).load(std::memory_order_acquire);
    std::memcpy(to + i * sizeof word, &word, sizeof word);
  }
}

// Stores only the words that changed: readers' cache lines stay theirs. Each store is a release and
// each load an acquire, so that a reader of any new word also sees the odd generation (TSan knows
// no fences).
void store_words(Directory& directory, const DirectoryData& data) noexcept {
  const auto* from = reinterpret_cast<const std::byte*>(&data);
  uint64_t* to = words_of(directory);
  for (size_t i = 0; i < kWords; i++) {
    uint64_t word = 0;
    std::memcpy(&word, from + i * sizeof word, sizeof word);
    std::atomic_ref<uint64_t> target(to[i]);
    if (target.load(std::memory_order_relaxed) != word) {
      target.store(word, std::memory_order_release);
    }
  }
}

}  // namespace

void set_name(std::array<char, 64>& to, std::string_view name) noexcept {
  to = {};
  std::memcpy(to.data(), name.data(), std::min(name.size(), to.size() - 1));
}

LidList departed_lids(const DirectoryData& before, const DirectoryData& now) {
  auto lives = [&now](uint64_t incarnation) {
    return std::ranges::any_of(now.peers, [incarnation](const PeerEntry& peer) {
      return peer.known && !peer.gone && peer.incarnation == incarnation;
    });
  };
  LidList lids;
  for (const PeerEntry& peer : before.peers) {
    if (!peer.known || peer.gone || lives(peer.incarnation)) continue;
    lids.add(peer.ports);
  }
  return lids;
}

Directory& directory_of(rail::HostMemory& memory) noexcept {
  return *std::launder(reinterpret_cast<Directory*>(memory.directory()));
}

uint32_t directory_generation(rail::HostMemory& memory) noexcept {
  return directory_of(memory).generation.load(std::memory_order_acquire);
}

uint32_t read_directory(rail::HostMemory& memory, DirectoryData& out) noexcept {
  Directory& directory = directory_of(memory);
  constexpr int kTries = 5000;
  uint32_t before = 0;
  for (int i = 0; i < kTries; i++) {
    before = directory.generation.load(std::memory_order_acquire);
    if ((before & 1) == 0) {
      DirectoryData copy;
      load_words(directory, copy);
      if (directory.generation.load(std::memory_order_relaxed) == before) {
        out = copy;
        return before;
      }
    }
    ::sched_yield();  // the daemon may have been put aside in the middle of a write
  }
  return before | 1;
}

void recover_directory(rail::HostMemory& memory, DirectoryData& out) noexcept {
  Directory& directory = directory_of(memory);
  if ((directory.generation.load(std::memory_order_acquire) & 1) == 0) {
    load_words(directory, out);
  } else {
    out = directory.last;
  }
  const auto end_name = [](std::array<char, 64>& name) { name.back() = '\0'; };
  end_name(out.host_name);
  end_name(out.fabric_name);
  for (PeerEntry& peer : out.peers) end_name(peer.name);
}

// The copy is made while `data` is whole, so one of the two always is.
void write_directory(rail::HostMemory& memory, const DirectoryData& data) noexcept {
  Directory& directory = directory_of(memory);
  const uint32_t odd = directory.generation.load(std::memory_order_relaxed) | 1;
  directory.generation.store(odd, std::memory_order_relaxed);
  store_words(directory, data);
  directory.generation.store(odd + 1, std::memory_order_release);
  directory.last = data;
  for (rail::SlotId id = 1; id < rail::kSlotsMax; id++) {
    const auto state = memory.slot(id).state.load(std::memory_order_acquire);
    if (state == rail::SlotState::kAttached) memory.wake(id);
  }
}

}  // namespace tbt::fabric
