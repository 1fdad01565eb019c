// Unix SOCK_SEQPACKET sockets that carry texts and descriptors: what tbtd and its processes talk
// through; and SOCK_STREAM ones, for protocols that are not ours. Every descriptor made or received
// here is close-on-exec.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::sys {

inline constexpr size_t kMessageBytesMax = 64 * 1024;
inline constexpr size_t kMessageFdsMax = 64;

struct Message {
  std::string text;
  std::vector<UniqueFd> fds;
};

struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

// Makes the socket file with mode 0600; EADDRINUSE if there is a file, ENAMETOOLONG over 107 bytes.
Result<UniqueFd> listen_seqpacket(const std::string& path, int backlog);
// The errno of connect(2), above all ENOENT and ECONNREFUSED; EAGAIN if the other side's queue
// stays full.
Result<UniqueFd> connect_seqpacket(const std::string& path);
// EAGAIN if nobody waits.
Result<UniqueFd> accept_seqpacket(int listener);

// One message, never in pieces. Does not block: EAGAIN if the other side does not read.
Status send_message(int socket, std::string_view text, std::span<const int> fds);
// Waits at most timeout_ms (0: not at all, EAGAIN). EPIPE: the other side closed. EMSGSIZE: larger
// than kMessageBytesMax. EMFILE: descriptors were lost for want of room in this process's table.
Result<Message> receive_message(int socket, int timeout_ms);

// Sends a request and waits for its answer, also that of a server which answered and closed without
// reading.
Result<Message> exchange(int socket, std::string_view request, int timeout_ms);

Result<PeerCredentials> peer_credentials(int socket);

// Byte streams. listen_stream() is as listen_seqpacket(), accept_seqpacket() takes both kinds.
Result<UniqueFd> listen_stream(const std::string& path, int backlog);
Result<UniqueFd> connect_stream(const std::string& path);
// At most into.size() bytes, not 0, and the descriptors that came with them, which are added to
// `fds`. Does not block: EAGAIN. EPIPE: the other side closed. EMFILE: descriptors were lost.
Result<size_t> receive_bytes(int socket, std::span<std::byte> into, std::vector<UniqueFd>& fds);
// All of them, and the descriptors with the first; waits at most timeout_ms for room.
Status send_bytes(int socket, std::span<const std::byte> bytes, std::span<const int> fds,
                  int timeout_ms);

}  // namespace tbt::sys
