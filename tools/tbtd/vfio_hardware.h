// VfioHardware: a controller of this machine, behind VFIO. The keeper opens it and holds it, so
// that it stays ours and goes on when a daemon is killed; each daemon drives it with copies of the
// handles; processes get the device for its registers, and the container for memory of their own.
#pragma once

#include <map>
#include <string>
#include <vector>

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
  struct Options {
    std::string address;
    uint32_t host = 0;
    bool goes_on = false;  // for a daemon that was killed
    bool direct = true;    // processes may map their own memory
    std::string root{};    // as in VfioOptions
  };
  static Result<std::unique_ptr<Hardware>> open(
      const Options& options, std::vector<sys::UniqueFd> fds,
      rail::nhi::VfioKernel& kernel = rail::nhi::VfioKernel::real());
  // Whether memory can be unmapped by another process than the one that mapped it. If not, what a
  // dead one has mapped would stay for ever, so none may.
  static bool kernel_takes_back();

  // Of a real cable only its port is known.
  [[nodiscard]] uint32_t cable_number(uint32_t port) const override { return port; }
  [[nodiscard]] Answer grant(rail::SlotId slot) const override;
  bool reclaim(rail::SlotId slot) override;
  Answer change_cable(const fabric::Request& request) override;
  Answer remove() override;
  [[nodiscard]] bool is_gone() const override { return device_.is_gone(); }
  void report(nlohmann::json& status) const override;
  [[nodiscard]] std::vector<int> descriptors() const override;
  void handle(int descriptor) override;
  [[nodiscard]] std::string trouble() const override;

 private:
  // How far each rail had come when a process was found dead: what it posted lies before that.
  using Posted = std::vector<uint32_t>;

  VfioHardware(const Options& options, std::unique_ptr<fabric::Attachment> host,
               std::unique_ptr<rail::nhi::VfioDevice> device);

  const Options options_;
  rail::nhi::VfioDevice& device_;  // the host's
  std::map<rail::SlotId, Posted> dying_;
  bool wanted_back_ = false;
};

}  // namespace tbt::daemon
