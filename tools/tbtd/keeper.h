// Keeper: the process that outlives a host's daemon. It holds what the next daemon needs to go on
// where a killed one stopped: the hardware's descriptors, the listening socket (so callers wait
// instead of being turned away), and the connection and pidfd of each attached process (so nobody's
// end is missed). It does nothing else, so little can go wrong with it.
//
//   tbt fabric up --exec--> keeper --fork--> daemon, again each time one is killed by a signal
//                             ^-- ready; keep SLOT + descriptors; drop SLOT --'   (KeeperLink)
//
// A daemon that ends by itself ends the keeper with its exit code. The first one is not replaced if
// it is killed before it was ready, and none after kKeeperQuickDeaths in a row that came before
// that or within kKeeperQuick of the start. SIGTERM and SIGINT are passed on, and then nobody is
// replaced.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/time.h"
#include "rail/rail.h"
#include "sys/unique_fd.h"

namespace tbt::daemon {

inline constexpr int kKeeperQuickDeaths = 5;
inline constexpr Duration kKeeperQuick = Duration::from_ms(250);

// A process that is attached.
struct KeptProcess {
  sys::UniqueFd connection;
  sys::UniqueFd process;  // pidfd, if it could be had
};

// The daemon's side.
class KeeperLink {
 public:
  KeeperLink() = default;  // without a keeper
  explicit KeeperLink(sys::UniqueFd socket) : socket_(std::move(socket)) {}

  // From now on the daemon is replaced if it is killed.
  void ready();
  void keep(rail::SlotId slot, int connection, int process);
  void drop(rail::SlotId slot);

 private:
  void say(const std::string& text, std::vector<int> fds);

  sys::UniqueFd socket_;
};

// What a daemon begins with.
struct Inheritance {
  std::vector<sys::UniqueFd> hardware;  // emulated_hardware.h, vfio_hardware.h
  sys::UniqueFd listener;
  std::map<rail::SlotId, KeptProcess> processes;
  rail::SlotId last_slot = 1;  // given out last
  KeeperLink keeper;
  uint32_t restarts = 0;  // 0: the first daemon
};

class Keeper {
 public:
  using DaemonMain = std::function<int(Inheritance)>;

  Keeper(std::vector<sys::UniqueFd> hardware, sys::UniqueFd listener, DaemonMain daemon);
  // Returns the exit code when no daemon will follow. In the daemon's process it does not return.
  int run();

 private:
  bool start();
  int watch();
  void take_message();
  void handle_signals();
  bool nap(Duration duration);
  [[noreturn]] void become_daemon(sys::UniqueFd link);

  sys::UniqueFd listener_;
  std::vector<sys::UniqueFd> hardware_;
  DaemonMain daemon_;
  std::map<rail::SlotId, KeptProcess> processes_;
  sys::UniqueFd signals_;
  sys::UniqueFd link_;
  rail::SlotId last_slot_ = 1;
  pid_t pid_ = -1;
  uint32_t restarts_ = 0;
  bool ready_ = false;
  bool stopping_ = false;
};

}  // namespace tbt::daemon
