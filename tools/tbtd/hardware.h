// Hardware: where the controller of a daemon's host is. Either it is a part of an emulated fabric,
// and then its cables and its counters are there too, or it is a PCI device of this machine behind
// VFIO. What the daemon does with it is the same, through the Attachment.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fabric/attach.h"
#include "fabric/attach_protocol.h"
#include "tbtd/clients.h"

namespace tbt::daemon {

class Hardware {
 public:
  virtual ~Hardware() = default;

  // The daemon's own view of its host; everything but the rails is open.
  [[nodiscard]] fabric::Attachment& host() noexcept { return *host_; }

  // The number by which people know the cable in a port.
  [[nodiscard]] virtual uint32_t cable_number(uint32_t port) const = 0;
  // What an attaching process is told, and the descriptors that go with it.
  [[nodiscard]] virtual Answer grant(rail::SlotId slot) const = 0;
  // Takes back what a dead process has left with the controller, after its buffers. False: the
  // controller still reads it; call again later.
  virtual bool reclaim(rail::SlotId) { return true; }
  virtual Answer change_cable(const fabric::Request& request) = 0;
  // Takes an emulated controller away, as a real one may go.
  virtual Answer remove() = 0;
  // The controller is gone, and does not come back for this daemon.
  [[nodiscard]] virtual bool is_gone() const = 0;
  // "controller" and "cables" of the status.
  virtual void report(nlohmann::json& status) const = 0;

  // To be watched beside the host's wake-up.
  [[nodiscard]] virtual std::vector<int> descriptors() const { return {}; }
  virtual void handle(int) {}  // one of them is readable
  // Not empty: the daemon must end, for this reason.
  [[nodiscard]] virtual std::string trouble() const {
    return is_gone() ? "the controller is gone" : "";
  }

 protected:
  explicit Hardware(std::unique_ptr<fabric::Attachment> host) : host_(std::move(host)) {}

  const std::unique_ptr<fabric::Attachment> host_;
};

}  // namespace tbt::daemon
