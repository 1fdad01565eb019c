#include "rail/emulated/vfio_user_connection.h"

#include <utility>

#include "sys/unix_socket.h"

namespace tbt::rail::emulated {

using namespace vfio_user;

Result<bool> VfioUserConnection::serve() {
  for (int i = 0; i < kMessagesPerTurn; i++) {
    if (const Status s = step(); !s) {
      if (s.code() == EAGAIN) return false;
      return s;
    }
  }
  return true;
}

// One read; a message is carried out when it is whole.
Status VfioUserConnection::step() {
  const size_t whole = filled_ < kHeaderBytes ? kHeaderBytes : kHeaderBytes + header_.payload_bytes;
  const auto room = std::span(buffer_).subspan(filled_, whole - filled_);
  const auto n = sys::receive_bytes(socket_.get(), room, fds_);
  if (!n) return n.error();
  if (fds_.size() > kMessageFdsMax) return Status(EPROTO, "too many descriptors with a message");
  const bool had_header = filled_ >= kHeaderBytes;
  filled_ += n.value();
  if (filled_ < whole) return {};
  if (!had_header) {
    const auto header = decode_header(std::span(buffer_).first<kHeaderBytes>());
    if (!header) return header.error();
    header_ = header.value();
  }
  if (filled_ < kHeaderBytes + header_.payload_bytes) return {};
  return finish(std::span(buffer_).subspan(kHeaderBytes, header_.payload_bytes));
}

Status VfioUserConnection::finish(std::span<const std::byte> payload) {
  filled_ = 0;
  if (const Status s = device_.handle(header_, payload, std::exchange(fds_, {}), reply_); !s) {
    return s;
  }
  return reply_.empty() ? Status{} : sys::send_bytes(socket_.get(), reply_, {}, kSendTimeoutMs);
}

}  // namespace tbt::rail::emulated
