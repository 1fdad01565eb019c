// Two connection managers over models of their routers: paths come up, go down and come back.
#include "fabric/connection_manager.h"

#include "manager_world.h"

namespace tbt::fabric {
namespace {

TEST(ConnectionManager, TwoHostsAgreeOnAPathAtOnce) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  const Duration took = world.run_until_up(Duration::from_s(5));
  for (uint32_t h = 0; h < 2; ++h) {
    for (const auto& w : world.events_of<ManagerWarning>(h)) ADD_FAILURE() << w.text;
    for (const auto& w : world.events_of<RouterRefused>(h)) ADD_FAILURE() << w.text;
  }
  EXPECT_TRUE(world.up());
  EXPECT_LT(took, Duration::from_ms(5));
  printf("took %ld us, %lu steps\n", (long)took.ns / 1000, world.steps);
}

}  // namespace
}  // namespace tbt::fabric
