// Daemon: one host's tbtd, a single thread around one epoll set. It owns the host's controller,
// tells the agent what happens, carries out what the agent decides, and serves the processes of the
// host. No byte of an application's data passes through it.
//
//   socket, connections, processes -> Clients     frames on the cables -> RailPump -> HostAgent
//   packets of ring 0 -> Controller, which opens and closes the cables for the agent
//   interrupt of the host          -> look into both; time -> timerfd; SIGTERM, SIGINT -> end
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fabric/attach.h"
#include "fabric/host_agent.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"
#include "tbtd/clients.h"
#include "tbtd/controller.h"
#include "tbtd/hardware.h"
#include "tbtd/keeper.h"
#include "tbtd/rail_pump.h"
#include "wire/tb/path_agreement.h"

namespace tbt::daemon {

struct DaemonOptions {
  std::string fabric;
  std::string stem;  // .sock, .pid and .keeper are made with it
  std::string host_name;
  uint32_t host = 0;
  // Of an emulated fabric:
  uint32_t hosts = 0;
  uint16_t vendor_id = 0;  // what the NHI says it is
  uint16_t device_id = 0;
  // Or the PCI address of a controller in this machine, and how many ports of it are used.
  std::string controller{};
  uint32_t ports = 0;
  bool direct = true;  // processes may map memory of their own for it
  // wire::tb::PathFeature: the flow control that is offered to peers.
  uint32_t flow_features = wire::tb::kPathFeatureE2e | wire::tb::kPathFeatureCredits;
};

class Daemon {
 public:
  // Begins, or goes on where a daemon that was killed has stopped.
  static Result<std::unique_ptr<Daemon>> start(const DaemonOptions& options, Inheritance all);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Returns after SIGTERM or SIGINT, when the peers have been told and the host's ports are down.
  void run();

 private:
  Daemon() = default;
  Status bring_up();
  Status open_loop(const DaemonOptions& options, sys::UniqueFd listener);
  void make_agent(const DaemonOptions& options);
  void adopt(std::map<rail::SlotId, KeptProcess> processes);
  void recover();
  Status start_controller(const DaemonOptions& options);

  void turn();
  void wait();
  bool go_idle();
  void handle_event(uint64_t tag);
  void look_for_trouble();
  void carry_out();
  void set_timer(Instant due);
  void shut_down();

  Answer answer(const Client& client, const fabric::Request& request);
  Answer attach(const Client& client);
  Answer change_gid(const fabric::Request& request);
  void process_gone(rail::SlotId slot, pid_t pid);
  Instant reclaim_slots(Instant now);

  std::string socket_path_;
  std::string pid_path_;
  std::unique_ptr<Hardware> hardware_;
  fabric::Attachment* host_ = nullptr;  // the hardware's
  std::unique_ptr<fabric::HostAgent> agent_;
  std::unique_ptr<RailPump> pump_;
  std::unique_ptr<Controller> controller_;
  std::unique_ptr<Clients> clients_;
  sys::UniqueFd epoll_;
  sys::UniqueFd timer_;
  sys::UniqueFd signals_;
  KeeperLink keeper_;
  uint32_t restarts_ = 0;
  uint64_t incarnation_ = 0;
  // What a daemon that was killed has left: its directory (incarnation 0: nothing), and its paths.
  fabric::DirectoryData before_{};
  std::vector<fabric::PathStatus> kept_paths_;
  rail::SlotId last_slot_ = 1;
  std::vector<rail::SlotId> unreclaimed_;  // of dead processes
  uint32_t rails_up_ = 0;
  Instant next_{};
  bool stop_ = false;
};

}  // namespace tbt::daemon
