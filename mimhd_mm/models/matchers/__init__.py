"""Head matchers: what each student head learns from the teacher's heads."""
from .attention_head_matcher import AttentionHeadMatcher, LiteralHeadMatcher
from .explain_head_matcher import ExplainHeadMatcher
from .head_matchers import AverageHeadMatcher, HeadMatcher, OneToOneHeadMatcher, SelectHeadMatcher
from .regroup_head_matcher import RegroupHeadMatcher

__all__ = ['AttentionHeadMatcher', 'AverageHeadMatcher', 'ExplainHeadMatcher', 'HeadMatcher', 'LiteralHeadMatcher',
           'OneToOneHeadMatcher', 'RegroupHeadMatcher', 'SelectHeadMatcher']
