// GuestKeeper: what runs in the daemon's place on a host that is left to a virtual machine
// (`tbt fabric up --guest N`). It holds the fabric's descriptors, hands them to the one process at
// a time that plays the host's controller (`tbt fabric serve`), and answers questions. It drives
// nothing itself.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fabric/attach.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"
#include "tbtd/clients.h"
#include "tbtd/daemon.h"

namespace tbt::daemon {

class GuestKeeper {
 public:
  static Result<std::unique_ptr<GuestKeeper>> start(const DaemonOptions& options,
                                                    std::vector<sys::UniqueFd> fds);
  ~GuestKeeper();
  GuestKeeper(const GuestKeeper&) = delete;
  GuestKeeper& operator=(const GuestKeeper&) = delete;

  // Returns after SIGTERM or SIGINT.
  void run();

 private:
  explicit GuestKeeper(const DaemonOptions& options) : options_(options) {}
  Status open_loop();
  Answer answer(const Client& client, const fabric::Request& request);
  Answer grant(const Client& client);

  DaemonOptions options_;
  std::string socket_path_;
  std::string pid_path_;
  std::unique_ptr<fabric::Attachment> fabric_;
  std::unique_ptr<Clients> clients_;
  sys::UniqueFd epoll_;
  sys::UniqueFd signals_;
  pid_t served_by_ = 0;
};

}  // namespace tbt::daemon
