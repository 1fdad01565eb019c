// VfioUserConnection: the byte stream between a virtual machine and its device, cut into messages.
// A header and then exactly what it announces are read, so the descriptors that come with the bytes
// of a message are that message's.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "rail/emulated/vfio_user_device.h"
#include "sys/unique_fd.h"

namespace tbt::rail::emulated {

class VfioUserConnection {
 public:
  // The device outlives the connection.
  VfioUserConnection(sys::UniqueFd socket, VfioUserDevice& device) noexcept
      : socket_(std::move(socket)), device_(device) {}

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  // Carries out what has arrived, up to a number of messages, so that the owner gets to other work;
  // true if there may be more. EPIPE: the machine closed the connection. EPROTO: it sent what makes
  // no sense. On any error the connection is over.
  Result<bool> serve();

 private:
  static constexpr int kMessagesPerTurn = 64;
  static constexpr int kSendTimeoutMs = 5000;

  Status step();
  Status finish(std::span<const std::byte> payload);

  sys::UniqueFd socket_;
  VfioUserDevice& device_;
  std::array<std::byte, vfio_user::kHeaderBytes + vfio_user::kPayloadBytesMax> buffer_{};
  size_t filled_ = 0;
  vfio_user::Header header_;  // once kHeaderBytes are filled
  std::vector<sys::UniqueFd> fds_;
  vfio_user::Message reply_;
};

}  // namespace tbt::rail::emulated
