// EmulatedHardware: a host of an emulated fabric, whose silicon is shared memory.
#pragma once

#include "tbtd/hardware.h"

namespace tbt::daemon {

class EmulatedHardware final : public Hardware {
 public:
  // Of the descriptors that `tbt fabric up` hands to each daemon (fabric/open_host.h).
  static Result<std::unique_ptr<Hardware>> open(uint32_t host, uint32_t hosts,
                                                std::vector<sys::UniqueFd> fds);

  [[nodiscard]] uint32_t cable_number(uint32_t port) const override;
  [[nodiscard]] Answer grant(rail::SlotId slot) const override;
  Answer change_cable(const fabric::Request& request) override;
  Answer remove() override;
  [[nodiscard]] bool is_gone() const override;
  void report(nlohmann::json& status) const override;

 private:
  EmulatedHardware(uint32_t number, std::unique_ptr<fabric::Attachment> host)
      : Hardware(std::move(host)), number_(number) {}

  const uint32_t number_;
};

}  // namespace tbt::daemon
