// Process: this process's part in the fabric: the attachment to the host's daemon, one endpoint,
// the rails, the lock around them, and who makes progress when.
//
// Whoever holds the lock may call step(): receive, run timers, send, deliver events. Application
// threads do so inside post and poll calls. The progress thread does so when the application does
// not:
//
//   polling mode    the application polls by itself; the thread looks once per millisecond whether
//   it still does interrupt mode  the thread sleeps on the slot's futex with the rails armed, and
//   is woken by each arrival that
//                   finds it asleep. Entered when frames were found waiting (an application that
//                   watches its memory, computes, or waits for an event); left when the application
//                   is first to them again.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/time.h"
#include "device/direct_regions.h"
#include "device/engine_lock.h"
#include "device/rc_loss.h"
#include "engine/endpoint.h"
#include "fabric/attach.h"
#include "fabric/directory.h"
#include "fabric/framing.h"
#include "fabric/routes.h"
#include "tbt/device.h"

namespace tbt::device {

class ContextImpl;

class Process final : private engine::Router {
 public:
  // The one of this process, attached at the first call that finds a daemon. nullptr: none, see
  // `why`.
  static Process* get(Status& why);
  // For get(), and for tests, which attach by themselves.
  Process(std::unique_ptr<fabric::Attachment> attachment, uint32_t rc_loss_ppm);
  // False in the child of a fork: nothing here may be used there.
  static bool usable() noexcept;

  using Guard = std::unique_lock<EngineLock>;
  [[nodiscard]] Guard guard() noexcept { return Guard(lock_); }

  // With the lock held.
  engine::Endpoint& endpoint() noexcept { return *endpoint_; }
  const fabric::DirectoryData& directory() const noexcept { return directory_; }
  bool port_active(uint8_t port) const noexcept { return routes_.port_active(port); }
  // Fills an address handle's path; false if there is no way now.
  bool resolve(uint8_t port, const AddressVector& address, engine::AddressHandle& out) const;
  uint32_t new_qp_number() noexcept;
  Instant now() const noexcept;

  // One round of work; true if there was any. If `wanted` has completions after receiving, sending
  // is left to the next round (once), so that acknowledges travel with the application's answer.
  bool step(Instant now, const verbs::CompletionQueue* wanted = nullptr);
  // Nothing has happened for so long that another process may have more use for the processor.
  [[nodiscard]] bool idle(Instant now) const noexcept { return now - last_work_ > kPatience; }
  // Sends what may be sent now.
  bool transmit(Instant now);
  // Steps until nothing is `unsent` any more: what a queue pair owes its peer must leave before the
  // pair, or the process, is gone. A full ring is waited for, without the lock, but not for ever.
  void send_last(Guard& hold, const std::function<bool()>& unsent);
  // The controller reads this region by itself no more: it is copied from now on, what is under way
  // is waited for, and the mapping goes. False after a second in which a ring has stood still: the
  // controller may still read the region, and the mapping stays.
  bool end_direct(uint32_t key, const DirectRegions::Mapping& mapping);
  DirectRegions& direct() noexcept { return direct_; }
  // Waits until the rings have passed what has been sent; false if they do not.
  bool wait_read(Guard& hold);
  // Hands events to the contexts.
  void deliver_events();

  // The application polls: the thread keeps out of its way.
  void application_polls(Instant now) noexcept {
    application_seen_.store(now.ns, std::memory_order_relaxed);
  }
  // Contexts open and close; the thread lives while one is open. Throws when memory or threads are
  // short.
  void add_context(ContextImpl& context);
  void remove_context(ContextImpl& context);
  // The application is about to wait for an event: the thread shall take over at once.
  void application_sleeps() noexcept;
  // After a post, with the lock held: makes sure that somebody will see to the rest.
  void application_posted(Instant now) noexcept;
  // After sending, with the lock held: what went to this process itself shall not lie.
  void sent_to_self() noexcept;

 private:
  std::optional<verbs::Path> resolve(uint8_t port, const AddressVector& address,
                                     uint32_t spread) const override;
  bool lasts(const verbs::Path& path) const override { return routes_.lasts(path.rail); }

  bool receive(Instant now);
  bool receive_from(uint32_t rail, Instant now);
  bool transmit_on(uint32_t rail, Instant now);
  void watch_directory(Instant now);
  void apply_departures(const fabric::DirectoryData& before, Instant now);
  bool rails_pending() const noexcept;
  bool arm_rails() noexcept;
  bool application_quiet(Instant now) const noexcept;
  bool transmit_waits() const noexcept;
  Instant advance_rails(Instant now) noexcept;

  void wake_thread() noexcept;
  Instant thread_due(Instant now) const noexcept;
  int start_thread() noexcept;
  void run_thread();
  bool watch_application();
  void serve();
  bool work_until_idle();
  void sleep_on_slot(Instant now);

  std::unique_ptr<fabric::Attachment> attachment_;
  rail::HostMemory& memory_;
  DirectRegions direct_;
  EngineLock lock_;
  fabric::DirectoryData directory_{};
  fabric::Routes routes_{directory_};
  uint32_t generation_ = 0;
  uint64_t departures_seen_ = 0;
  fabric::FramingStats framing_;
  // Scratch of the data path: too large to be cleared for every packet.
  static constexpr size_t kRxBurst = 32;
  static constexpr size_t kTxLeast = 2 * fabric::kFramesPerPacketMax;
  std::array<rail::RxPacket, kRxBurst> rx_packets_;
  wire::ParsedPacket rx_parsed_;
  engine::TxPacket tx_packet_;
  static constexpr size_t kTxBurst = 32;
  std::array<rail::TxFrame, kTxBurst> tx_frames_;
  size_t tx_wanted_ = kTxLeast;  // buffers that the next burst asks for
  RcLoss rc_loss_;
  std::unique_ptr<engine::Endpoint> endpoint_;
  std::unique_ptr<fabric::DirectoryData> directory_before_;  // watch_directory()'s
  std::vector<ContextImpl*> contexts_;
  static constexpr Duration kPatience = Duration::from_us(20);
  Instant last_work_{};
  bool transmit_put_off_ = false;
  Instant futile_until_{};  // send_last() does not wait before
  Instant asleep_until_{};  // at the latest, while asleep_
  bool received_ = false;   // a rail was asked for frames since interrupts were last armed
  Instant next_advance_{};

  std::thread thread_;
  uint32_t useless_most_ = 0;  // the thread's own
  Instant served_until_{};
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> application_seen_{0};  // last poll, ns
  std::atomic<uint32_t> doze_word_{0};        // bumped to end a doze
  std::atomic<bool> asleep_{false};           // the thread sleeps on the slot
};

}  // namespace tbt::device
