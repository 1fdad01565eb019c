#include "sys/unix_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cstring>

#include "base/assert.h"

namespace tbt::sys {
namespace {

Status last_error(const char* text) noexcept { return Status(errno, text); }

Status make_address(const std::string& path, sockaddr_un& address) noexcept {
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return Status(ENAMETOOLONG, "socket path longer than 107 bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return {};
}

Result<UniqueFd> make_socket(int type) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return last_error("cannot make a socket");
  return fd;
}

// Room for the descriptors of one message, aligned for its headers.
union ControlBuffer {
  cmsghdr align;
  std::byte bytes[CMSG_SPACE(sizeof(int) * kMessageFdsMax)];
};

void collect_fds(msghdr& header, std::vector<UniqueFd>& out) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      out.emplace_back(fd);
    }
  }
}

Status wait_readable(int socket, int timeout_ms) noexcept {
  pollfd p{socket, POLLIN, 0};
  const int n = ::poll(&p, 1, timeout_ms);
  if (n > 0) return {};
  if (n == 0) return Status(timeout_ms == 0 ? EAGAIN : ETIMEDOUT, "no answer");
  return last_error("cannot wait for a message");
}

Status wait_writable(int socket, int timeout_ms) noexcept {
  pollfd p{socket, POLLOUT, 0};
  const int n = ::poll(&p, 1, timeout_ms);
  if (n > 0) return {};
  return n == 0 ? Status(ETIMEDOUT, "the other side does not read")
                : last_error("cannot wait for room");
}

void attach_fds(msghdr& header, ControlBuffer& control, std::span<const int> fds) noexcept {
  TBT_ASSERT(fds.size() <= kMessageFdsMax);
  if (fds.empty()) return;
  header.msg_control = control.bytes;
  header.msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr* c = CMSG_FIRSTHDR(&header);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
}

Result<UniqueFd> listen_on(const std::string& path, int type, int backlog) {
  sockaddr_un address{};
  if (const Status s = make_address(path, address); !s) return s;
  auto fd = make_socket(type);
  if (!fd) return fd.error();
  // The mode of the file is settled before anybody can find it: no moment with a wider one.
  const mode_t old_mask = ::umask(0177);
  const int bound = ::bind(fd->get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  const int bind_errno = errno;
  ::umask(old_mask);
  if (bound != 0) return Status(bind_errno, "cannot bind the socket");
  if (::listen(fd->get(), backlog) != 0) return last_error("cannot listen on the socket");
  return fd;
}

Result<UniqueFd> connect_to(const std::string& path, int type) {
  sockaddr_un address{};
  if (const Status s = make_address(path, address); !s) return s;
  auto fd = make_socket(type);
  if (!fd) return fd.error();
  // EAGAIN means that the listener's queue is full for the moment.
  for (int tries = 0; tries < 200; tries++) {
    if (::connect(fd->get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
    if (errno != EAGAIN && errno != EINTR) break;
    ::poll(nullptr, 0, 5);
  }
  return last_error("cannot connect");
}

ssize_t receive(int socket, msghdr& header) noexcept {
  ssize_t n = 0;
  do {
    n = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  return n;
}

ssize_t send(int socket, const msghdr& header) noexcept {
  ssize_t n = 0;
  do {
    n = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  return n;
}

}  // namespace

Result<UniqueFd> listen_seqpacket(const std::string& path, int backlog) {
  return listen_on(path, SOCK_SEQPACKET, backlog);
}

Result<UniqueFd> connect_seqpacket(const std::string& path) {
  return connect_to(path, SOCK_SEQPACKET);
}

Result<UniqueFd> listen_stream(const std::string& path, int backlog) {
  return listen_on(path, SOCK_STREAM, backlog);
}

Result<UniqueFd> connect_stream(const std::string& path) { return connect_to(path, SOCK_STREAM); }

Result<UniqueFd> accept_seqpacket(int listener) {
  UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return last_error("cannot accept a connection");
  return fd;
}

Status send_message(int socket, std::string_view text, std::span<const int> fds) {
  if (text.size() > kMessageBytesMax) return Status(EMSGSIZE, "message too long");
  iovec part{const_cast<char*>(text.data()), text.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  ControlBuffer control{};
  attach_fds(header, control, fds);
  return send(socket, header) < 0 ? last_error("cannot send the message") : Status{};
}

Result<Message> receive_message(int socket, int timeout_ms) {
  if (const Status s = wait_readable(socket, timeout_ms); !s) return s;
  Message message;
  message.text.resize(kMessageBytesMax);
  iovec part{message.text.data(), message.text.size()};
  ControlBuffer control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes;
  header.msg_controllen = sizeof control.bytes;
  const ssize_t n = receive(socket, header);
  if (n < 0) return last_error("cannot receive a message");
  collect_fds(header, message.fds);
  if (n == 0) return Status(EPIPE, "connection closed");
  if ((header.msg_flags & MSG_TRUNC) != 0) return Status(EMSGSIZE, "message too long");
  if ((header.msg_flags & MSG_CTRUNC) != 0) return Status(EMFILE, "too few file descriptors");
  message.text.resize(static_cast<size_t>(n));
  return message;
}

Result<Message> exchange(int socket, std::string_view request, int timeout_ms) {
  const Status sent = send_message(socket, request, {});
  if (!sent && sent.code() != EPIPE && sent.code() != ECONNRESET) return sent;
  auto answer = receive_message(socket, timeout_ms);
  // The other side closed with our request unread: that is reported first, once; what it said comes
  // next.
  if (!answer && answer.error().code() == ECONNRESET) answer = receive_message(socket, timeout_ms);
  return answer;
}

Result<PeerCredentials> peer_credentials(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return last_error("cannot learn who connects");
  }
  return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

Result<size_t> receive_bytes(int socket, std::span<std::byte> into, std::vector<UniqueFd>& fds) {
  iovec part{into.data(), into.size()};
  ControlBuffer control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes;
  header.msg_controllen = sizeof control.bytes;
  const ssize_t n = receive(socket, header);
  if (n < 0) return last_error("cannot receive");
  collect_fds(header, fds);
  if (n == 0) return Status(EPIPE, "connection closed");
  if ((header.msg_flags & MSG_CTRUNC) != 0) return Status(EMFILE, "too few file descriptors");
  return static_cast<size_t>(n);
}

Status send_bytes(int socket, std::span<const std::byte> bytes, std::span<const int> fds,
                  int timeout_ms) {
  while (!bytes.empty()) {
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    ControlBuffer control{};
    attach_fds(header, control, fds);
    const ssize_t n = send(socket, header);
    if (n > 0) {
      bytes = bytes.subspan(static_cast<size_t>(n));
      fds = {};
    } else if (errno != EAGAIN) {
      return last_error("cannot send");
    } else if (const Status s = wait_writable(socket, timeout_ms); !s) {
      return s;
    }
  }
  return {};
}

}  // namespace tbt::sys
