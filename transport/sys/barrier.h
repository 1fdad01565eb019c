// Named barriers between the processor and a device that reads and writes its memory. A call says
// why the order matters; the machine decides what it costs.
//
//   to_device()    descriptors and payload are visible before the doorbell that follows
//   from_device()  payload is read after the descriptor that announced it
//   doorbell()     the doorbell leaves now, not in some write-combining buffer
//
// And one between two processors: full_barrier(), when each writes its own word and then reads the
// other's.
#pragma once

namespace tbt::sys {

#if defined(__x86_64__)
// Stores to write-back memory are seen in order by a coherent device, and loads are not reordered:
// only the compiler must be held. A doorbell to uncached memory is not buffered.
inline void to_device() noexcept { asm volatile("" ::: "memory"); }
inline void from_device() noexcept { asm volatile("" ::: "memory"); }
inline void doorbell() noexcept { asm volatile("" ::: "memory"); }
inline void full_barrier() noexcept { asm volatile("lock; orl $0, (%%rsp)" ::: "memory", "cc"); }
inline void cpu_relax() noexcept { asm volatile("pause" ::: "memory"); }
#elif defined(__aarch64__)
inline void to_device() noexcept { asm volatile("dmb oshst" ::: "memory"); }
inline void from_device() noexcept { asm volatile("dmb oshld" ::: "memory"); }
inline void doorbell() noexcept { asm volatile("dsb st" ::: "memory"); }
inline void full_barrier() noexcept { asm volatile("dmb ish" ::: "memory"); }
inline void cpu_relax() noexcept { asm volatile("yield" ::: "memory"); }
#else
#error "name the barriers of this architecture"
#endif

}  // namespace tbt::sys
