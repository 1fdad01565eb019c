// tbt fabric serve: plays the controller of one host for a virtual machine.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "fabric/attach_protocol.h"
#include "fabric/open_host.h"
#include "sys/unix_socket.h"
#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/fabric.h"
#include "tbt/guest_server.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

constexpr int kAnswerTimeoutMs = 2000;

struct ServeOptions {
  std::string name = "default";
  uint32_t host = 0;
  std::string socket;
  std::string trace;
  bool stay = false;
};

// The descriptors of everything. The connection stays: its end tells either side that the other is
// gone.
struct Grant {
  sys::UniqueFd keeper;
  fabric::GuestGrant shape;
  std::unique_ptr<fabric::Attachment> fabric;
};

Grant ask_for_grant(const ServeOptions& o) {
  Grant grant;
  auto socket = sys::connect_seqpacket(host_file(o.name, o.host, "sock"));
  if (!socket) fail(unreachable_text(o.name, o.host, socket.error()));
  grant.keeper = std::move(socket).value();
  auto answer = sys::exchange(grant.keeper.get(),
                              fabric::encode_request({.operation = fabric::Operation::kGuest}),
                              kAnswerTimeoutMs);
  if (!answer) fail(unreachable_text(o.name, o.host, answer.error()));
  fabric::Reply reply;
  const Status s = fabric::decode_reply(answer->text, fabric::Expected::kGuestGrant, reply);
  if (!s) fail(std::string(s.text()));
  if (reply.code == EBUSY) {
    fail(
        fmt::format("host {} of fabric '{}' is taken ({}): virtual machines get the hosts named "
                    "with 'tbt fabric up --guest', one process each",
                    o.host, o.name, reply.text));
  }
  if (reply.code != 0) fail(reply.text);
  grant.shape = reply.guest;
  auto fabric = fabric::map_host({rail::kDaemonSlot, reply.guest.host, reply.guest.hosts},
                                 std::move(answer->fds));
  if (!fabric) fail(fmt::format("cannot map the fabric: {}", fabric.error().text()));
  grant.fabric = std::move(fabric).value();
  return grant;
}

// A socket of an earlier life is replaced, anything else is not touched.
sys::UniqueFd listen_at(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode) && !sys::connect_stream(path)) {
    ::unlink(path.c_str());
  }
  auto listener = sys::listen_stream(path, 1);
  if (!listener) {
    fail(fmt::format("cannot listen on {}: {} ({})", path, listener.error().text(),
                     strerror(listener.error().code())));
  }
  return std::move(listener).value();
}

void run(const ServeOptions& o) {
  (void)load_fabric(o.name);
  Grant grant = ask_for_grant(o);
  GuestServer server(*grant.fabric, grant.shape, {.stay = o.stay, .trace_path = o.trace});
  const sys::UniqueFd listener = listen_at(o.socket);
  fmt::print("host {} of fabric '{}' waits for its virtual machine at {}\n", o.host, o.name,
             o.socket);
  std::fflush(stdout);
  const std::string why = server.run(listener.get(), grant.keeper.get());
  ::unlink(o.socket.c_str());
  fmt::print("{}\n", why);
}

}  // namespace

void add_fabric_serve(CLI::App& fabric) {
  auto o = std::make_shared<ServeOptions>();
  CLI::App* serve = fabric.add_subcommand(
      "serve", "Play a host's controller for a virtual machine (QEMU's vfio-user-pci)");
  serve->add_option("--name", o->name, "name of the fabric")->capture_default_str();
  serve->add_option("--host", o->host, "a host of 'tbt fabric up --guest'")->required();
  serve->add_option("--socket", o->socket, "where the machine connects")->required();
  serve->add_option("--trace", o->trace, "write each control packet to this file, as a line");
  serve->add_flag("--stay", o->stay, "wait for the next machine when one has gone");
  serve->callback([o] { run(*o); });
}

}  // namespace tbt::tool
