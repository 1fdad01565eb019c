// VfioHardware: a controller of this machine, behind VFIO. The keeper opens it and holds it, so
// that it stays ours and goes on when a daemon is killed; each daemon drives it with copies of the
// handles; processes get the device for its registers and nothing that maps memory for DMA.
#pragma once

#include "rail/nhi/vfio_device.h"
#include "tbtd/hardware.h"

namespace tbt::daemon {

inline constexpr uint32_t kPortsMax = 2;  // of one controller

// The keeper's part: the open controller, the host's memory and its wake-up.
class VfioHolder {
 public:
  // The errors of VfioDevice::open(); EINVAL if the controller has too few rings for the ports.
  static Result<std::unique_ptr<VfioHolder>> open(
      const std::string& address, uint32_t ports,
      rail::nhi::VfioKernel& kernel = rail::nhi::VfioKernel::real());

  // For VfioHardware::open(), in its order.
  [[nodiscard]] Result<std::vector<sys::UniqueFd>> copies() const;

 private:
  VfioHolder() = default;

  std::unique_ptr<rail::HostMemory> memory_;
  sys::UniqueFd wake_;
  std::unique_ptr<rail::nhi::VfioDevice> device_;
};

class VfioHardware final : public Hardware {
 public:
  // The descriptors are the memory, the wake-up, and the container, group and device of VFIO.
  // `goes_on`: for a daemon that was killed.
  static Result<std::unique_ptr<Hardware>> open(const std::string& address, uint32_t host,
                                                std::vector<sys::UniqueFd> fds, bool goes_on);

  // Of a real cable only its port is known.
  [[nodiscard]] uint32_t cable_number(uint32_t port) const override { return port; }
  [[nodiscard]] Answer grant(rail::SlotId slot) const override;
  Answer change_cable(const fabric::Request& request) override;
  Answer remove() override;
  [[nodiscard]] bool is_gone() const override { return device_.is_gone(); }
  void report(nlohmann::json& status) const override;
  [[nodiscard]] std::vector<int> descriptors() const override;
  void handle(int descriptor) override;
  [[nodiscard]] std::string trouble() const override;

 private:
  VfioHardware(std::string address, uint32_t number, std::unique_ptr<fabric::Attachment> host,
               std::unique_ptr<rail::nhi::VfioDevice> device);

  const std::string address_;
  const uint32_t number_;
  rail::nhi::VfioDevice& device_;  // the host's
  bool wanted_back_ = false;
};

}  // namespace tbt::daemon
