// The process's allocator, with a switch to let it fail: malloc and its kin, operator new, mmap,
// memfd_create and eventfd of the program and of every library that it has loaded.
#pragma once

#include <cstdint>

namespace tbt::failing_memory {

enum class Whose { kThisThread, kEveryThread };

// From now on the `nth` allocation fails (1: the next), once.
void arm(uint32_t nth, Whose whose = Whose::kThisThread);
// True if it came to that.
bool disarm();

// Blocks allocated and not freed, of all threads.
int64_t live_blocks();

}  // namespace tbt::failing_memory
