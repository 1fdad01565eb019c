// Clients: the daemon's connections. It accepts those of its own user and group, answers requests,
// and sees when an attached process is gone: by the end of its connection (also after exec) or of
// the process itself (also when a child of it still holds the connection).
#pragma once

#include <functional>
#include <map>
#include <string>

#include "base/time.h"
#include "fabric/attach_protocol.h"
#include "rail/rail.h"
#include "sys/unique_fd.h"
#include "sys/unix_socket.h"

namespace tbt::daemon {

// Connections that have not attached; attached ones are bounded by the slots.
inline constexpr size_t kPendingMax = 256;
inline constexpr Duration kPendingFor = Duration::from_s(10);

struct Answer {
  std::string text;
  std::vector<int> fds{};                 // not owned
  rail::SlotId attached = rail::kNoSlot;  // the slot that the connection holds from now on
  bool close = false;
};

struct Client {
  sys::UniqueFd socket;
  sys::UniqueFd process;  // pidfd, if it could be had
  sys::PeerCredentials credentials;
  rail::SlotId slot = rail::kNoSlot;
  Instant since{};
};

class Clients {
 public:
  struct Hooks {
    std::function<Answer(const Client&, const fabric::Request&)> answer;
    std::function<void(const Client&)> attached;    // before it hears of it; may be empty
    std::function<void(rail::SlotId, pid_t)> gone;  // an attached process
  };

  // Adds its descriptors to `epoll`.
  Clients(int epoll, sys::UniqueFd listener, Hooks hooks);

  // A process that attached to an earlier daemon of this host.
  void adopt(rail::SlotId slot, sys::UniqueFd socket, sys::UniqueFd process);

  // Events of `epoll` whose data is not smaller than kFirstTag.
  static constexpr uint64_t kFirstTag = 16;
  void handle(uint64_t tag, Instant now);
  // Drops connections that never asked to attach; when the next one is due.
  Instant expire(Instant now);

  [[nodiscard]] uint64_t refused() const { return refused_; }

 private:
  void accept_all(Instant now);
  bool turn_away();
  void admit(sys::UniqueFd socket, Instant now);
  void serve(uint64_t id);
  bool reply(const Client& client, const Answer& answer);
  void drop(uint64_t id);

  int epoll_;
  sys::UniqueFd listener_;
  sys::UniqueFd spare_;  // given up for a moment to turn a caller away when descriptors run out
  Hooks hooks_;
  std::map<uint64_t, Client> clients_;
  uint64_t next_id_ = 1;
  size_t pending_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace tbt::daemon
