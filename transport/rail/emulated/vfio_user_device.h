// VfioUserDevice: a host controller of the emulated fabric as a virtual machine sees it through
// vfio-user. It answers the machine's messages one by one, and lends the NHI model the machine's
// memory and interrupts. It knows no socket: whoever reads the messages (vfio_user_connection.h)
// hands them in and sends the replies.
//
// Bus mastering is the gate to memory and interrupts alike, since a message-signalled interrupt is
// a write of the device.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "rail/emulated/guest_port.h"
#include "rail/emulated/iova_table.h"
#include "rail/emulated/pci_config_space.h"
#include "rail/emulated/vfio_user_message.h"
#include "rail/nhi/pci_device.h"
#include "sys/unique_fd.h"

namespace tbt::rail::emulated {

class VfioUserDevice final : public GuestPort {
 public:
  explicit VfioUserDevice(PciIds ids) noexcept : config_(ids) {}

  // The controller behind BAR0: needed before the first message. Not owned.
  void set_controller(nhi::PciDevice* controller) noexcept { controller_ = controller; }

  // Called after each change of what find() answers.
  void on_memory_change(std::function<void()> hook) { memory_changed_ = std::move(hook); }

  // Carries a message out; `reply` is what the machine gets, empty if it wants nothing. An error
  // means that the machine is not to be talked to any more.
  Status handle(const vfio_user::Header& header, std::span<const std::byte> payload,
                std::vector<sys::UniqueFd> fds, vfio_user::Message& reply);
  // The machine is gone: the controller is reset, and nothing of the machine is kept.
  void disconnect() noexcept;

  std::byte* find(uint64_t iova, uint64_t bytes, Reach reach) noexcept override;
  [[nodiscard]] bool is_bus_master() const noexcept override { return config_.is_bus_master(); }
  void fire(uint32_t vector) noexcept override;

  [[nodiscard]] const IovaTable& memory() const noexcept { return memory_; }

 private:
  struct Caller {  // of one message
    const vfio_user::Header& header;
    std::vector<sys::UniqueFd>& fds;
  };
  using Reply = Result<vfio_user::Message>;

  Reply answer(Caller& caller, const vfio_user::Version& version);
  Reply answer(Caller& caller, const vfio_user::DmaMap& map);
  Reply answer(Caller& caller, const vfio_user::DmaUnmap& unmap);
  Reply answer(Caller& caller, const vfio_user::DeviceGetInfo& get);
  Reply answer(Caller& caller, const vfio_user::GetRegionInfo& get);
  Reply answer(Caller& caller, const vfio_user::GetIrqInfo& get);
  Reply answer(Caller& caller, const vfio_user::SetIrqs& set);
  Reply answer(Caller& caller, const vfio_user::RegionRead& read);
  Reply answer(Caller& caller, const vfio_user::RegionWrite& write);
  Reply answer(Caller& caller, const vfio_user::DeviceReset& reset);
  Reply answer(Caller& caller, const vfio_user::Unknown& unknown);

  void read_bar(uint32_t offset, std::span<std::byte> out) noexcept;
  void write_bar(uint32_t offset, std::span<const std::byte> bytes) noexcept;
  void read_pending(uint32_t offset, std::span<std::byte> out) const noexcept;
  void assign(uint32_t vector, sys::UniqueFd fd) noexcept;
  void reset() noexcept;

  nhi::PciDevice* controller_ = nullptr;
  std::function<void()> memory_changed_ = [] {};
  PciConfigSpace config_;
  IovaTable memory_;
  std::array<sys::UniqueFd, kMsixVectors> interrupts_;
  uint32_t pending_ = 0;  // vectors that fired while they had nowhere to go
  bool greeted_ = false;  // VERSION was exchanged
};

}  // namespace tbt::rail::emulated
