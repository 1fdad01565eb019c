// XRC on a running fabric: domains and their files, and messages to an SRQ that they name.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>

#include "live.h"

namespace tbt::provider_live {
namespace {

constexpr const char* kFileVariable = "TBT_TEST_XRCD_FILE";

class Xrc : public LiveTest {
 protected:
  ibv_xrcd* open_domain(int fd, int flags) {
    ibv_xrcd_init_attr attr{
        .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = fd, .oflags = flags};
    errno = 0;
    return ibv_open_xrcd(context, &attr);
  }
  ibv_srq* make_srq(ibv_xrcd* xrcd, ibv_cq* to) {
    ibv_srq_init_attr_ex attr{};
    attr.attr = {.max_wr = 16, .max_sge = 1, .srq_limit = 0};
    attr.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_XRCD |
                     IBV_SRQ_INIT_ATTR_CQ;
    attr.srq_type = IBV_SRQT_XRC;
    attr.pd = pd;
    attr.xrcd = xrcd;
    attr.cq = to;
    return ibv_create_srq_ex(context, &attr);
  }
  ibv_qp* make_target(ibv_xrcd* xrcd) {
    ibv_qp_init_attr_ex attr{};
    attr.qp_type = IBV_QPT_XRC_RECV;
    attr.comp_mask = IBV_QP_INIT_ATTR_XRCD;
    attr.xrcd = xrcd;
    return ibv_create_qp_ex(context, &attr);
  }
  void connect_xrc(ibv_qp* from, ibv_qp* to) {
    for (ibv_qp* qp : {from, to}) {
      to_init(qp);
      ibv_qp_attr attr{};
      attr.qp_state = IBV_QPS_RTR;
      attr.path_mtu = IBV_MTU_1024;
      attr.dest_qp_num = (qp == from ? to : from)->qp_num;
      attr.max_dest_rd_atomic = 4;
      attr.min_rnr_timer = 1;
      attr.ah_attr.dlid = lid;
      attr.ah_attr.port_num = 1;
      const int rtr = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
      const bool target = qp == to;
      ASSERT_EQ(
          ibv_modify_qp(qp, &attr,
                        rtr | (target ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0)),
          0);
      attr.qp_state = IBV_QPS_RTS;
      attr.timeout = 14;
      attr.retry_cnt = attr.rnr_retry = 7;
      attr.max_rd_atomic = 4;
      const int rts = IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT;
      ASSERT_EQ(
          ibv_modify_qp(
              qp, &attr,
              rts | (target ? 0 : IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC)),
          0);
    }
  }
};

class TemporaryFile {
 public:
  TemporaryFile() : fd_(mkstemp(path_.data())) {}
  ~TemporaryFile() {
    close(fd_);
    unlink(path_.data());
  }
  int fd() const { return fd_; }
  const char* path() const { return path_.data(); }

 private:
  std::array<char, 32> path_ = {"/tmp/tbt_xrcd_XXXXXX"};
  int fd_;
};

TEST_F(Xrc, AFileNamesOneDomainInAProcess) {
  const TemporaryFile file;
  EXPECT_EQ(open_domain(file.fd(), 0), nullptr);
  EXPECT_EQ(errno, EAGAIN) << "there is none, and none is to be made";
  ibv_xrcd* first = open_domain(file.fd(), O_CREAT | O_EXCL);
  ASSERT_NE(first, nullptr);
  ibv_xrcd* second = open_domain(file.fd(), 0);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(open_domain(file.fd(), O_CREAT | O_EXCL), nullptr);
  EXPECT_EQ(errno, EINVAL);
  // A target of one handle takes messages to an SRQ of the other.
  ibv_cq* other_cq = ibv_create_cq(context, 16, nullptr, nullptr, 0);
  ibv_srq* srq = make_srq(second, other_cq);
  ASSERT_NE(srq, nullptr);
  uint32_t number = 0;
  ASSERT_EQ(ibv_get_srq_num(srq, &number), 0);
  ibv_qp* target = make_target(first);
  ASSERT_NE(target, nullptr);
  ibv_qp* sender = make_qp({.type = IBV_QPT_XRC_SEND});
  ASSERT_NE(sender, nullptr);
  connect_xrc(sender, target);
  EXPECT_EQ(ibv_close_xrcd(first), EBUSY);
  EXPECT_EQ(ibv_close_xrcd(second), EBUSY);
  EXPECT_EQ(ibv_destroy_cq(other_cq), EBUSY);
  std::memcpy(memory, "to an srq", 10);
  ibv_sge into = sge(1024, 64);
  ibv_recv_wr receive{};
  receive.wr_id = 70;
  receive.sg_list = &into;
  receive.num_sge = 1;
  ibv_recv_wr* bad_receive = nullptr;
  ASSERT_EQ(ibv_post_srq_recv(srq, &receive, &bad_receive), 0);
  ibv_sge from = sge(0, 10);
  ibv_send_wr wr{};
  wr.wr_id = 1;
  wr.sg_list = &from;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND;
  wr.send_flags = IBV_SEND_SIGNALED;
  wr.qp_type.xrc.remote_srqn = number;
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(sender, &wr, &bad), 0);
  const auto sent = completions(cq, 1);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].status, IBV_WC_SUCCESS);
  const auto received = completions(other_cq, 1);
  ASSERT_EQ(received.size(), 1u);
  EXPECT_EQ(received[0].wr_id, 70u);
  EXPECT_EQ(received[0].qp_num, target->qp_num);
  EXPECT_STREQ(reinterpret_cast<char*>(memory + 1024), "to an srq");
  EXPECT_EQ(ibv_post_send(target, &wr, &bad), EINVAL);
  wr.qp_type.xrc.remote_srqn = number + 1;
  ASSERT_EQ(ibv_post_send(sender, &wr, &bad), 0);
  const auto refused = completions(cq, 1);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].status, IBV_WC_REM_INV_REQ_ERR);
  EXPECT_EQ(ibv_destroy_qp(target), 0);
  EXPECT_EQ(ibv_destroy_srq(srq), 0);
  EXPECT_EQ(ibv_destroy_cq(other_cq), 0);
  EXPECT_EQ(ibv_close_xrcd(first), 0);
  EXPECT_EQ(ibv_close_xrcd(second), 0);
}

TEST_F(Xrc, DomainsWithoutAFileAreAllDifferent) {
  ibv_xrcd* first = open_domain(-1, O_CREAT);
  ibv_xrcd* second = open_domain(-1, O_CREAT);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(ibv_close_xrcd(first), 0);
  EXPECT_EQ(ibv_close_xrcd(second), 0);
  EXPECT_EQ(open_domain(12345, O_CREAT), nullptr);
  EXPECT_EQ(errno, EBADF);
}

// Run in a process of its own by the test below.
TEST_F(Xrc, ChildOfTheTestBelow) {
  const char* path = std::getenv(kFileVariable);
  if (path == nullptr) GTEST_SKIP() << "the test below starts it with a file";
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(open_domain(fd, O_CREAT), nullptr);
  EXPECT_EQ(errno, EBUSY);
  close(fd);
}

TEST_F(Xrc, AnotherProcessOfTheHostIsRefused) {
  const TemporaryFile file;
  ibv_xrcd* mine = open_domain(file.fd(), O_CREAT);
  ASSERT_NE(mine, nullptr);
  std::array<char, 4096> program{};
  ASSERT_GT(readlink("/proc/self/exe", program.data(), program.size() - 1), 0);
  // Not by a shell: ThreadSanitizer, which is preloaded here, does not work in one.
  std::string filter = "--gtest_filter=Xrc.ChildOfTheTestBelow";
  const std::array<char*, 3> words{program.data(), filter.data(), nullptr};
  setenv(kFileVariable, std::string(file.path()).c_str(), 1);
  pid_t child = -1;
  ASSERT_EQ(posix_spawn(&child, program.data(), nullptr, nullptr, words.data(), environ), 0);
  unsetenv(kFileVariable);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(ibv_close_xrcd(mine), 0);
}

}  // namespace
}  // namespace tbt::provider_live
