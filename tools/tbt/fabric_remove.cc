// tbt fabric remove: takes the controller of a host away, as a real one may go: its daemon ends, and
// programs of the host are told. It is back when the fabric is made anew.
#include <memory>

#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/fabric.h"

namespace tbt::tool {
namespace {

struct RemoveOptions {
  std::string name = "default";
  uint32_t host = 0;
};

}  // namespace

void add_fabric_remove(CLI::App& fabric) {
  auto o = std::make_shared<RemoveOptions>();
  CLI::App* remove = fabric.add_subcommand("remove", "Take the controller of a host away, for good");
  remove->add_option("--name", o->name, "name of the fabric")->capture_default_str();
  remove->add_option("--host", o->host, "whose controller")->required();
  remove->callback(
      [o] { tell_or_fail(o->name, o->host, {.operation = fabric::Operation::kRemove}); });
}

}  // namespace tbt::tool
