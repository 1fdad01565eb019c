// The process's side of attaching: ask, take the descriptors, map, open. Nothing is left behind on
// failure: everything hangs on the Attachment, and the daemon takes the slot back when the
// connection closes.
#include "fabric/attach.h"

#include <cstdlib>

#include "fabric/attach_protocol.h"
#include "fabric/open_host.h"
#include "sys/unix_socket.h"

namespace tbt::fabric {
namespace {

// A daemon answers within a millisecond, if the scheduler lets it: beside a dozen busy programs on
// two processors it was seen to stand ready to run for two seconds.
constexpr int kAnswerTimeoutMs = 5000;
constexpr const char* kDefaultSocket = "/run/tbt/tbtd.sock";

// The daemon's own words cannot travel in a Status; these are for the codes that it gives.
Status refusal(int code) noexcept {
  switch (code) {
    case EAGAIN:
      return Status(EAGAIN, "the host has no free process slot");
    case EACCES:
      return Status(EACCES, "the daemon serves only its own user and group");
    case EPROTO:
      return Status(EPROTO, "the daemon speaks another version");
    default:
      return Status(code, "the daemon refused");
  }
}

Result<sys::Message> ask(int socket) {
  const Request request{.operation = Operation::kAttach};
  return sys::exchange(socket, encode_request(request), kAnswerTimeoutMs);
}

}  // namespace

std::string daemon_socket_path() {
  const char* path = ::secure_getenv("TBT_SOCKET");
  return path != nullptr && *path != '\0' ? path : kDefaultSocket;
}

Result<std::unique_ptr<Attachment>> attach(const std::string& socket_path) {
  auto connection = sys::connect_seqpacket(socket_path);
  if (!connection) return connection.error();
  auto answer = ask(connection->get());
  if (!answer) {
    const int code = answer.error().code();
    return code == EPIPE ? Status(ECONNREFUSED, "the daemon closed the connection")
                         : answer.error();
  }
  Reply reply;
  if (const Status s = decode_reply(answer->text, Expected::kAttachGrant, reply); !s) return s;
  if (reply.code != 0) return refusal(reply.code);
  const AttachGrant& grant = reply.grant;
  auto attachment = grant.vfio
                        ? map_vfio_host(grant, std::move(answer->fds))
                        : map_host({grant.slot, grant.host, grant.hosts}, std::move(answer->fds));
  if (!attachment) return attachment.error();
  attachment.value()->connection = std::move(connection).value();
  if (const Status s = open_rails(*attachment.value()); !s) return s;
  return attachment;
}

}  // namespace tbt::fabric
