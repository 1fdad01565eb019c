// GuestServer: the loop of `tbt fabric serve`. One thread: messages of the virtual machine, the
// model's calls for service, and time.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "fabric/attach.h"
#include "fabric/attach_protocol.h"
#include "rail/emulated/vfio_user_connection.h"
#include "rail/emulated/vfio_user_device.h"

namespace tbt::tool {

struct GuestServerOptions {
  bool stay = false;       // for the next machine
  std::string trace_path;  // empty: no trace
};

class GuestServer {
 public:
  // The fabric outlives it. Fails (commands.h) if the trace cannot be written.
  GuestServer(fabric::Attachment& fabric, const fabric::GuestGrant& shape,
              const GuestServerOptions& options);
  ~GuestServer();
  GuestServer(const GuestServer&) = delete;
  GuestServer& operator=(const GuestServer&) = delete;

  // Serves until SIGTERM or SIGINT, or the machine goes, or the host's keeper does; says why.
  std::string run(int listener, int keeper);

 private:
  void open_trace(const std::string& path);
  void admit(int listener);
  // Why serving is over; empty: it is not.
  std::string serve_machine();
  [[nodiscard]] int advance() noexcept;

  fabric::Attachment& fabric_;
  GuestServerOptions options_;
  uint32_t host_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> trace_;
  rail::emulated::VfioUserDevice device_;
  std::unique_ptr<rail::emulated::VfioUserConnection> connection_;
  sys::UniqueFd signals_;
};

}  // namespace tbt::tool
